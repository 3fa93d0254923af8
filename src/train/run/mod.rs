//! A run: where its files lie, the models and texts that its stages work on, and the loop of steps.

pub(super) mod checkpoint;
mod clock;
mod fit;
pub(super) mod float_model;
mod models;
mod place;
mod progress;
mod rows;
pub(super) mod tensor_file;
mod texts;
pub(super) mod training;

pub(super) use models::pooling;
pub use place::Run;
pub use texts::Purpose;
