//! What the scenarios stand on: a node that can be broken in every way, in one
//! thread and in no time. See [`sim`].

#![warn(missing_docs)]

pub mod sim;
