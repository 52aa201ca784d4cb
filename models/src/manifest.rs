//! The manifest of a model and the only way to load one: read, check, compare the hash.
//!
//! Goes in: a directory. Comes out: a [`Model`], or an error that names file, key and value.
//! The ONNX bytes are only hashed here, never parsed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Name of the manifest inside a model's directory.
pub const MANIFEST_FILE: &str = "manifest.toml";

/// Largest manifest read. A hundred golden vectors of 64 numbers are some 80 KiB.
pub const MANIFEST_BYTES_MAX: u64 = 256 * 1024;

/// Largest model file read: bounds what a wrong path can cost a node with 512 MiB.
pub const MODEL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What `manifest.toml` says. Built by [`Manifest::parse`], which checks it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    /// The ONNX file, a plain name in the manifest's own directory.
    pub file: String,
    /// Lower-case hex of the ONNX file's SHA-256.
    pub sha256: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub training: Training,
    pub evaluation: Evaluation,
    pub golden: Golden,
}

/// One input or output tensor, `f32`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub name: String,
    /// The batch first, as a symbol.
    pub shape: Vec<Dim>,
    /// What each entry of the last dimension means; empty where they have no names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl Port {
    /// Numbers in one row, that is the product of all dimensions but the batch.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.shape.iter().map(Dim::fixed).product()
    }
}

/// One dimension: a number, or a symbol that the caller chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    Fixed(usize),
    Symbol(String),
}

impl Dim {
    fn fixed(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Symbol(_) => 1,
        }
    }
}

/// Where the weights come from, so that they can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The data in a sentence.
    pub data: String,
    /// The command that writes these files again.
    pub command: String,
    pub seed: u64,
    pub samples: usize,
}

/// Numbers from samples that the training never saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    pub data: String,
    pub seed: u64,
    pub samples: usize,
    pub accuracy: f32,
    /// Share of each class that was found, in the order of the output's labels.
    pub recall: Vec<f32>,
}

/// Inputs with the answers the model must give on every backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Largest absolute difference per number.
    pub tolerance: f32,
    pub vectors: Vec<GoldenVector>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenVector {
    pub input: Vec<f32>,
    pub output: Vec<f32>,
}

impl GoldenVector {
    /// True if `answer` has the right length and every number lies within `tolerance`.
    /// NaN is never within it.
    #[must_use]
    pub fn matches(&self, answer: &[f32], tolerance: f32) -> bool {
        self.output.len() == answer.len()
            && self
                .output
                .iter()
                .zip(answer)
                .all(|(want, got)| (want - got).abs() <= tolerance)
    }
}

impl Golden {
    /// Asks `infer` for every vector and compares.
    ///
    /// # Errors
    /// `Infer` when the engine fails, `Differs` with the first vector that is off.
    pub fn check<E: std::error::Error + Send + Sync + 'static>(
        &self,
        mut infer: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<(), GoldenError> {
        for (index, vector) in self.vectors.iter().enumerate() {
            let found = infer(&vector.input).map_err(|source| GoldenError::Infer {
                index,
                source: Box::new(source),
            })?;
            if !vector.matches(&found, self.tolerance) {
                let expected = vector.output.clone();
                return Err(GoldenError::Differs {
                    index,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error("the engine gave no answer to golden vector {index}")]
    Infer {
        index: usize,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("golden vector {index}: expected {expected:?}, the model answers {found:?}")]
    Differs {
        index: usize,
        expected: Vec<f32>,
        found: Vec<f32>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than the {max} bytes allowed", path.display())]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{} is not a manifest", path.display())]
    Syntax {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{}: {key} = {value}: {reason}", path.display())]
    Invalid {
        path: PathBuf,
        key: String,
        value: String,
        reason: &'static str,
    },
    #[error("{}: sha256 is {found}, the manifest says {expected}", path.display())]
    Hash {
        path: PathBuf,
        expected: String,
        found: String,
    },
}

/// A model whose file is the one its manifest describes.
#[derive(Clone, Debug)]
pub struct Model {
    manifest: Manifest,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Model {
    /// Reads `dir/manifest.toml` and the file it names.
    ///
    /// # Errors
    /// [`ManifestError`]; `Hash` when the file is not the one that was shipped.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let manifest_path = dir.join(MANIFEST_FILE);
        let text = read_bounded(&manifest_path, MANIFEST_BYTES_MAX)?;
        let text = String::from_utf8(text).map_err(|error| ManifestError::Read {
            path: manifest_path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let manifest = Manifest::parse(&text, &manifest_path)?;
        let path = dir.join(&manifest.file);
        let bytes = read_bounded(&path, MODEL_BYTES_MAX)?;
        let found = sha256_hex(&bytes);
        if found != manifest.sha256 {
            return Err(ManifestError::Hash {
                path,
                expected: manifest.sha256,
                found,
            });
        }
        Ok(Self {
            manifest,
            path,
            bytes,
        })
    }

    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the ONNX file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ONNX file, as hashed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Manifest {
    /// Parses and checks the text of a manifest. `path` is only named in errors.
    ///
    /// # Errors
    /// `Syntax` for what TOML or the types refuse, `Invalid` for what contradicts itself.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|source| ManifestError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        match manifest.fault() {
            None => Ok(manifest),
            Some((key, value, reason)) => Err(ManifestError::Invalid {
                path: path.to_owned(),
                key,
                value,
                reason,
            }),
        }
    }

    /// The manifest as TOML text, what [`Manifest::parse`] reads.
    ///
    /// # Errors
    /// Only for a manifest that TOML cannot hold, such as a seed above `i64::MAX`.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The first contradiction: key, value, reason.
    fn fault(&self) -> Option<(String, String, &'static str)> {
        let fault = |key: &str, value: &dyn std::fmt::Debug, reason| {
            Some((key.to_owned(), format!("{value:?}"), reason))
        };
        for (key, text) in [("name", &self.name), ("version", &self.version)] {
            if text.is_empty() {
                return fault(key, text, "must not be empty");
            }
        }
        // A manifest must not be able to point outside its directory.
        if Path::new(&self.file).file_name() != Some(self.file.as_ref()) {
            return fault("file", &self.file, "must be a plain file name");
        }
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(hex) {
            return fault("sha256", &self.sha256, "must be 64 lower-case hex digits");
        }
        let [input] = self.inputs.as_slice() else {
            return fault("inputs", &self.inputs.len(), "exactly one is supported");
        };
        let [output] = self.outputs.as_slice() else {
            return fault("outputs", &self.outputs.len(), "exactly one is supported");
        };
        for (key, port) in [("inputs.shape", input), ("outputs.shape", output)] {
            let [Dim::Symbol(_), Dim::Fixed(1..)] = port.shape.as_slice() else {
                return fault(key, &port.shape, "must be [\"batch\", n] with n > 0");
            };
        }
        if !output.labels.is_empty() && output.labels.len() != output.row_len() {
            return fault(
                "outputs.labels",
                &output.labels,
                "needs one label per output",
            );
        }
        let shares = std::iter::once(&self.evaluation.accuracy).chain(&self.evaluation.recall);
        for share in shares {
            if !(0.0..=1.0).contains(share) {
                return fault("evaluation", share, "must be a share in 0..=1");
            }
        }
        if !(self.golden.tolerance.is_finite() && self.golden.tolerance > 0.0) {
            return fault(
                "golden.tolerance",
                &self.golden.tolerance,
                "must be above 0",
            );
        }
        if self.golden.vectors.is_empty() {
            return fault("golden.vectors", &0, "at least one is needed");
        }
        for (index, vector) in self.golden.vectors.iter().enumerate() {
            let sides = [
                ("input", &vector.input, input),
                ("output", &vector.output, output),
            ];
            for (side, numbers, port) in sides {
                let key = format!("golden.vectors[{index}].{side}");
                if numbers.len() != port.row_len() {
                    return fault(
                        &key,
                        &numbers.len(),
                        "length must be that of the port's row",
                    );
                }
                if !numbers.iter().all(|number| number.is_finite()) {
                    return fault(&key, numbers, "must be finite numbers");
                }
            }
        }
        None
    }
}

/// Lower-case hex of the SHA-256 of `bytes`.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
            hex
        })
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, ManifestError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(|source| ManifestError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > max {
        return Err(ManifestError::TooLarge {
            path: path.to_owned(),
            max,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Damage = fn(&mut Manifest);

    #[test]
    fn what_is_written_is_read_back() {
        let manifest = example();
        let text = manifest.to_toml().unwrap();
        assert_eq!(
            Manifest::parse(&text, Path::new("m.toml")).unwrap(),
            manifest,
            "{text}"
        );
    }

    #[test]
    fn an_error_names_file_key_and_value() {
        let cases: [(Damage, &str); 7] = [
            (|m| m.name.clear(), "m.toml: name = \"\": must not be empty"),
            (
                |m| m.file = "../etc/passwd".into(),
                "m.toml: file = \"../etc/passwd\": must be",
            ),
            (
                |m| m.sha256 = "AB".into(),
                "m.toml: sha256 = \"AB\": must be 64",
            ),
            (
                |m| m.golden.tolerance = f32::NAN,
                "m.toml: golden.tolerance = NaN: must be",
            ),
            (
                |m| m.golden.vectors[0].input.clear(),
                "m.toml: golden.vectors[0].input = 0: length",
            ),
            (
                |m| m.evaluation.accuracy = 93.0,
                "m.toml: evaluation = 93.0: must be a share",
            ),
            (|m| m.inputs.clear(), "m.toml: inputs = 0: exactly one"),
        ];
        for (damage, message) in cases {
            let mut manifest = example();
            damage(&mut manifest);
            let text = manifest.to_toml().unwrap();
            let error = Manifest::parse(&text, Path::new("m.toml"))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = format!("color = 1\n{}", example().to_toml().unwrap());
        let error = Manifest::parse(&text, Path::new("m.toml")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("unknown field `color`"), "{source}");
    }

    #[test]
    fn a_file_that_was_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MANIFEST_FILE), example().to_toml().unwrap()).unwrap();
        std::fs::write(dir.path().join("m.onnx"), b"model").unwrap();
        assert_eq!(Model::load(dir.path()).unwrap().bytes(), b"model");

        std::fs::write(dir.path().join("m.onnx"), b"modem").unwrap();
        let error = Model::load(dir.path()).unwrap_err();
        assert!(matches!(error, ManifestError::Hash { .. }), "{error}");

        std::fs::remove_file(dir.path().join("m.onnx")).unwrap();
        assert!(
            Model::load(dir.path())
                .unwrap_err()
                .to_string()
                .ends_with("m.onnx")
        );
    }

    #[test]
    fn goldens_tell_wrong_from_right() {
        let golden = example().golden;
        let answer = |value: f32| move |_: &[f32]| Ok::<_, io::Error>(vec![value]);
        golden.check(answer(0.5)).unwrap();
        golden.check(answer(0.505)).unwrap();
        assert!(matches!(
            golden.check(answer(0.52)),
            Err(GoldenError::Differs { index: 0, .. })
        ));
        assert!(matches!(
            golden.check(answer(f32::NAN)),
            Err(GoldenError::Differs { .. })
        ));
        let fails = |_: &[f32]| Err(io::Error::other("no engine"));
        assert!(matches!(
            golden.check(fails),
            Err(GoldenError::Infer { index: 0, .. })
        ));
    }

    fn example() -> Manifest {
        let batch = || Dim::Symbol("batch".into());
        let port = |name: &str, len| Port {
            name: name.into(),
            shape: vec![batch(), Dim::Fixed(len)],
            labels: Vec::new(),
        };
        Manifest {
            name: "m".into(),
            version: "1.0.0".into(),
            file: "m.onnx".into(),
            sha256: sha256_hex(b"model"),
            inputs: vec![port("x", 2)],
            outputs: vec![port("y", 1)],
            training: Training {
                data: "synthetic".into(),
                command: "none".into(),
                seed: 7,
                samples: 1,
            },
            evaluation: Evaluation {
                data: "synthetic".into(),
                seed: 8,
                samples: 10,
                accuracy: 0.9,
                recall: vec![0.9],
            },
            golden: Golden {
                tolerance: 0.01,
                vectors: vec![GoldenVector {
                    input: vec![0.1, 1.0e-7],
                    output: vec![0.5],
                }],
            },
        }
    }
}
