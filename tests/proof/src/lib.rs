//! Proof that the gate and the budget keep their promises.
//!
//! [`rules`] says which rules of ARCHITECTURE.md a printed plan breaks in a
//! [`world`] of plain data. It is written from that document alone and imports
//! nothing of the product, so that a mistake in the gate is not repeated here.
//! [`draw`] makes worlds and plans at random, [`gate`] asks the real gate about
//! them and compares; [`ledger`] does the same for histories of spending.
//!
//! A new primitive is a row in `primitives::PRIMITIVES` and an arm in `draw::step`; a new
//! rule is a row in `rules::RULES`, and whatever it looks at a field of the world.

pub mod draw;
pub mod gate;
pub mod ledger;
mod primitives;
mod routes;
pub mod rules;
pub mod text;
pub mod world;
