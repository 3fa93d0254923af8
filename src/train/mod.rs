//! Training: the differentiable model, its losses and optimizer, and the four-stage recipe.

pub mod losses;
pub mod model;
pub mod optim;
