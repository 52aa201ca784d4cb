//! Tells a healthy machine from an unbalanced one and a worn bearing by its vibration.
//!
//! Goes in: nothing but the seeds below. Comes out: the files in `models/vibration/`, the
//! same bytes each time. The data is synthetic: amplitudes in 16 frequency bands of a
//! rotating machine, made by the rules in [`spectrum`]. It is a stand-in that gives the
//! service under test a real model to serve; it says nothing about real machines.

use crate::manifest::{
    Dim, Evaluation, Golden, GoldenVector, Manifest, Port, Training, sha256_hex,
};
use crate::mlp::{Mlp, Rng, Sample, Schedule, argmax};
use crate::onnx;

/// Frequency bands in a spectrum.
pub const BANDS: usize = 16;
const HIDDEN: usize = 32;

/// In the order of the model's outputs.
pub const CLASSES: [&str; 3] = ["normal", "imbalance", "bearing"];

const TRAINING_SEED: u64 = 20_260;
const TRAINING_SAMPLES: usize = 3_000;
const TEST_SEED: u64 = 20_262;
const TEST_SAMPLES: usize = 3_000;
const SCHEDULE: Schedule = Schedule {
    seed: 7,
    epochs: 20,
    rate: 0.01,
    momentum: 0.8,
};

/// Engines sum in different orders; their Softmax outputs differ by some 1e-7.
const TOLERANCE: f32 = 1.0e-5;
/// For a version that is made while tests wait.
const VARIANT_SAMPLES: usize = 300;
/// Two of each class.
const GOLDENS: usize = 6;

/// The two files of the model.
#[derive(Debug)]
pub struct Built {
    pub onnx: Vec<u8>,
    pub manifest: Manifest,
}

/// Trains, evaluates and writes the model. Some seconds without optimisation.
#[must_use]
pub fn build() -> Built {
    let training = samples(TRAINING_SEED, TRAINING_SAMPLES);
    let test = samples(TEST_SEED, TEST_SAMPLES);
    finish(
        "1.0.0",
        &Mlp::train(&training, &SCHEDULE),
        TRAINING_SAMPLES,
        &test,
    )
}

/// Another version of the same shape, within some 0.1 s: other weights, and golden vectors of
/// its own for the same inputs. With `shift` above 0 it takes each class for one of the others:
/// a model that somebody trained on mixed-up labels, and whose files all agree.
#[must_use]
pub fn variant(version: &str, seed: u64, shift: usize) -> Built {
    let mut training = samples(TRAINING_SEED, VARIANT_SAMPLES);
    for sample in &mut training {
        sample.class = (sample.class + shift) % CLASSES.len();
    }
    let schedule = Schedule { seed, ..SCHEDULE };
    let test = samples(TEST_SEED, VARIANT_SAMPLES);
    finish(
        version,
        &Mlp::train(&training, &schedule),
        VARIANT_SAMPLES,
        &test,
    )
}

fn finish(
    version: &str,
    model: &Mlp<BANDS, HIDDEN, 3>,
    trained_on: usize,
    test: &[Sample<BANDS>],
) -> Built {
    let onnx = onnx::classifier("vibration", "features", "probabilities", &model.layers());
    let port = |name: &str, size, labels: &[&str]| Port {
        name: name.to_owned(),
        shape: vec![Dim::Symbol("batch".to_owned()), Dim::Fixed(size)],
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    };
    let golden = |sample: &Sample<BANDS>| GoldenVector {
        input: sample.features.to_vec(),
        output: model.infer(&sample.features).to_vec(),
    };
    let manifest = Manifest {
        name: "vibration".to_owned(),
        version: version.to_owned(),
        file: "model.onnx".to_owned(),
        sha256: sha256_hex(&onnx),
        inputs: vec![port("features", BANDS, &[])],
        outputs: vec![port("probabilities", CLASSES.len(), &CLASSES)],
        training: Training {
            data: "synthetic spectra, homeostat_models::vibration::spectrum".to_owned(),
            command: "cargo run -p homeostat-models --example train_vibration".to_owned(),
            seed: TRAINING_SEED,
            samples: trained_on,
        },
        evaluation: evaluate(model, test),
        golden: Golden {
            tolerance: TOLERANCE,
            vectors: test.iter().take(GOLDENS).map(golden).collect(),
        },
    };
    Built { onnx, manifest }
}

/// One spectrum of `class`: amplitudes relative to the healthy machine's noise floor.
///
/// - Every machine hums: a floor that falls with frequency, and the shaft's own line in band
///   1, 2 or 3 (its speed varies) with weaker harmonics at twice and three times that band.
/// - Imbalance raises the shaft's line by a severity, and hardly its harmonics.
/// - A worn bearing lifts a hump of neighbouring bands around a resonance in 9..=13.
/// - Load scales all of it, by more than a mild fault does, and each band has its own noise.
///
/// Severities start low, so that the classes overlap and no model can be perfect.
pub fn spectrum(class: usize, rng: &mut Rng) -> [f32; BANDS] {
    let load = rng.between(0.7, 1.3);
    let shaft = 1 + rng.below(3);
    let resonance = 9 + rng.below(5);
    let severity = rng.between(0.3, 2.0);
    let mut bands = [0.0; BANDS];
    for (band, amplitude) in bands.iter_mut().enumerate() {
        *amplitude = 0.5 - 0.02 * band as f32;
        if band == shaft {
            *amplitude += rng.between(0.7, 1.1) + if class == 1 { severity } else { 0.0 };
        }
        if band == 2 * shaft || band == 3 * shaft {
            *amplitude += rng.between(0.1, 0.4) + if class == 1 { 0.1 * severity } else { 0.0 };
        }
        if class == 2 {
            *amplitude += match band.abs_diff(resonance) {
                0 => 0.5 * severity,
                1 => 0.3 * severity,
                2 => 0.1 * severity,
                _ => 0.0,
            };
        }
        // An amplitude has no sign.
        *amplitude = (load * *amplitude * (1.0 + 0.2 * rng.normal())).abs();
    }
    bands
}

/// `count` spectra, the classes in turn.
#[must_use]
pub fn samples(seed: u64, count: usize) -> Vec<Sample<BANDS>> {
    let mut rng = Rng::seeded(seed);
    let sample = |index: usize| {
        let class = index % CLASSES.len();
        Sample {
            features: spectrum(class, &mut rng),
            class,
        }
    };
    (0..count).map(sample).collect()
}

fn evaluate(model: &Mlp<BANDS, HIDDEN, 3>, test: &[Sample<BANDS>]) -> Evaluation {
    let found = |sample: &&Sample<BANDS>| argmax(&model.infer(&sample.features)) == sample.class;
    let share = |hits: usize, of: usize| hits as f32 / of.max(1) as f32;
    let recall = |class: usize| {
        let of = test.iter().filter(|sample| sample.class == class);
        share(of.clone().filter(found).count(), of.count())
    };
    Evaluation {
        data: "the same generator under another seed".to_owned(),
        seed: TEST_SEED,
        samples: test.len(),
        accuracy: share(test.iter().filter(found).count(), test.len()),
        recall: (0..CLASSES.len()).map(recall).collect(),
    }
}
