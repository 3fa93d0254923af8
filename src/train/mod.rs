//! Training: the differentiable model, its losses and optimizer, and the four-stage recipe.

#[cfg(test)]
mod golden;
pub mod losses;
pub mod model;
pub mod ops;
pub mod optim;
