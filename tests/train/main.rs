//! Training, whole runs of it on small random checkpoints: one program of tests, a file for each subject.

#![cfg(feature = "train")]

#[path = "../golden_files/mod.rs"]
mod golden_files;
#[path = "../common/recipe.rs"]
mod recipe;

mod mistakes;
mod models;
mod packed;
mod pairs;
mod run;
mod stopped;
