//! Manifests, golden vectors and the ONNX files they describe.
//!
//! Goes in: a directory with `manifest.toml` and the ONNX file it names. Comes out: a
//! [`Model`] whose bytes have the promised hash, with shapes, evaluation numbers and
//! golden vectors at hand. [`onnx`] writes such files and [`vibration`] rebuilds the model
//! that ships here, so no step needs Python.
//!
//! On purpose this crate runs no inference. The engine belongs to whoever answers with the
//! model; it passes its answers to [`Golden::check`].

pub mod manifest;
pub mod mlp;
pub mod onnx;
pub mod vibration;

pub use manifest::{
    Dim, Evaluation, Golden, GoldenError, GoldenVector, Manifest, ManifestError, Model, Port,
    Training, sha256_hex,
};
