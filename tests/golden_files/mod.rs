//! What several integration tests read.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

/// The names of the small checkpoints.
pub const SMALL: [&str; 4] = ["bert", "roberta", "xlm-roberta", "distilbert"];

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn fixtures() -> PathBuf {
    repository().join("tests/fixtures")
}

pub fn small(name: &str) -> PathBuf {
    fixtures().join("small").join(name)
}

/// The sentences of `make_golden.py`, in its order.
pub fn sentences() -> Vec<String> {
    let json = std::fs::read(fixtures().join("sentences.json")).unwrap();
    let mut sentences: Vec<String> = serde_json::from_slice(&json).unwrap();
    let paragraph = sentences[..24].join(" ");
    sentences.push(paragraph.repeat(3));
    sentences.push("나는 학교에 간다 ".repeat(1500));
    sentences
}

/// The lines of `korean.txt.gz`. They hold other line separators than `\n`, on purpose.
pub fn corpus() -> Vec<String> {
    let text = munjang::eval::read_text(&fixtures().join("korean.txt.gz")).unwrap();
    text.strip_suffix('\n').unwrap().split('\n').map(str::to_owned).collect()
}

/// A golden file.
pub struct Golden(Vec<u8>);

impl Golden {
    pub fn read(path: impl AsRef<Path>) -> Self {
        Golden(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn u32s(&self, name: &str) -> Vec<u32> {
        self.bytes(name).as_chunks().0.iter().map(|&value| u32::from_le_bytes(value)).collect()
    }

    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
    }

    /// Token ids of each sentence.
    pub fn ids(&self) -> Vec<Vec<u32>> {
        let mut ids = self.u32s("ids").into_iter();
        self.u32s("lengths")
            .into_iter()
            .map(|length| ids.by_ref().take(length as usize).collect())
            .collect()
    }
}

/// Cosine of two vectors of any length.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    assert_eq!(a.len(), b.len());
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
