//! Writes `models/vibration/model.onnx` and `manifest.toml` again, bit for bit.

use std::path::Path;

use homeostat_models::manifest::MANIFEST_FILE;
use homeostat_models::vibration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vibration");
    let built = vibration::build();
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(&built.manifest.file), &built.onnx)?;
    std::fs::write(dir.join(MANIFEST_FILE), built.manifest.to_toml()?)?;
    let evaluation = &built.manifest.evaluation;
    println!(
        "accuracy {:.4} on {} unseen samples, recall {:?}, {} bytes, sha256 {}",
        evaluation.accuracy,
        evaluation.samples,
        evaluation.recall,
        built.onnx.len(),
        built.manifest.sha256,
    );
    Ok(())
}
