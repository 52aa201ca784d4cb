//! The shipped model: its hash, its golden vectors in tract, and that it can be made again.

use std::path::Path;

use homeostat_models::{Model, vibration};
use tract_onnx::prelude::*;

#[test]
fn the_shipped_model_keeps_its_promises_in_tract() {
    let model = shipped();
    let plan = onnx()
        .model_for_read(&mut model.bytes())
        .and_then(|graph| graph.into_optimized())
        .and_then(|graph| graph.into_runnable())
        .unwrap();
    let infer = |rows: &[f32]| -> Vec<f32> {
        let width = model.manifest().inputs[0].row_len();
        let input = Tensor::from_shape(&[rows.len() / width, width], rows).unwrap();
        let output = plan.run(tvec!(input.into())).unwrap();
        output[0]
            .to_plain_array_view::<f32>()
            .unwrap()
            .iter()
            .copied()
            .collect()
    };
    let golden = &model.manifest().golden;
    golden
        .check(|input| Ok::<_, std::io::Error>(infer(input)))
        .unwrap();

    // The batch is symbolic: all vectors at once give the same answers.
    let rows: Vec<f32> = golden
        .vectors
        .iter()
        .flat_map(|vector| vector.input.clone())
        .collect();
    let answers = infer(&rows);
    for (vector, answer) in golden.vectors.iter().zip(answers.chunks(3)) {
        assert!(
            vector.matches(answer, golden.tolerance),
            "{vector:?} {answer:?}"
        );
    }
}

#[test]
fn the_shipped_model_is_rebuilt_bit_for_bit() {
    let (model, built) = (shipped(), vibration::build());
    assert_eq!(model.bytes(), built.onnx);
    assert_eq!(*model.manifest(), built.manifest);
}

#[test]
fn the_numbers_are_neither_chance_nor_too_good() {
    let evaluation = &shipped().manifest().evaluation.clone();
    assert!(
        (0.8..0.995).contains(&evaluation.accuracy),
        "{evaluation:?}"
    );
    assert!(
        evaluation.recall.iter().all(|recall| *recall > 0.6),
        "{evaluation:?}"
    );
}

fn shipped() -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vibration"))
        .expect("the model ships with the crate")
}

#[test]
fn a_variant_has_the_same_inputs_and_answers_of_its_own() {
    let shipped = shipped();
    let inputs = |golden: &homeostat_models::Golden| -> Vec<_> {
        golden.vectors.iter().map(|v| v.input.clone()).collect()
    };
    let good = vibration::variant("1.1.0", 8, 0);
    let bad = vibration::variant("2.0.0", 8, 1);
    for built in [&good, &bad] {
        let text = built.manifest.to_toml().unwrap();
        let read = homeostat_models::Manifest::parse(&text, Path::new("m")).unwrap();
        assert_eq!(read.sha256, homeostat_models::sha256_hex(&built.onnx));
        assert_eq!(inputs(&read.golden), inputs(&shipped.manifest().golden));
        assert_ne!(read.golden.vectors, shipped.manifest().golden.vectors);
        assert_eq!(
            homeostat_models::onnx::ports(&built.onnx).unwrap(),
            homeostat_models::onnx::ports(shipped.bytes()).unwrap()
        );
    }
    assert!(good.manifest.evaluation.accuracy > 0.8, "{good:?}");
    assert!(bad.manifest.evaluation.accuracy < 0.2, "{bad:?}");
}
