//! One training step against PyTorch's, alternating in one run:
//!
//! ```text
//! PYTHON=python3 cargo bench --features train --bench training_step
//! ```
//!
//! The step: 64 sentences of 20 tokens, 3 layers × 384, feed-forward 1536, vocabulary 32,000, word
//! embeddings frozen, f32, two threads; forward, loss on the pooled vectors, backward, AdamW.
//! `benches/training_step.py` does the same in PyTorch (with transformers); without them only our
//! time is printed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use candle_core::Device;
use munjang::config::{Activation, ModelConfig, Pooling};
use munjang::train::internals::{
    AdamW, AdamWConfig, BertModel, ForwardOptions, Freeze, TokenBatch, losses, random_float_model,
};

const SENTENCES: usize = 64;
const TOKENS: usize = 20;
const VOCAB: usize = 32_000;

struct Ours {
    model: BertModel,
    optimizer: AdamW,
    batch: TokenBatch,
    scores: Vec<f32>,
}

impl Ours {
    fn new() -> munjang::Result<Self> {
        let config = ModelConfig {
            model_type: "bert".into(),
            vocab_size: VOCAB,
            hidden_size: 384,
            num_hidden_layers: 3,
            num_attention_heads: 12,
            intermediate_size: 1536,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            pooling: Pooling::Mean,
            ..ModelConfig::default()
        };
        let weights = random_float_model(&config, 1);
        let mut model = BertModel::from_float_model(&weights, &Device::Cpu)?;
        model.freeze(Freeze { word_embeddings: true, ..Freeze::default() })?;
        let sentences: Vec<Vec<u32>> = (0..SENTENCES)
            .map(|s| (0..TOKENS).map(|t| ((s * 7919 + t * 104_729) % VOCAB) as u32).collect())
            .collect();
        Ok(Ours {
            model,
            optimizer: AdamW::new(AdamWConfig::default())?,
            batch: TokenBatch::new(&sentences)?,
            scores: (0..SENTENCES / 2).map(|i| i as f32 / (SENTENCES / 2) as f32).collect(),
        })
    }

    /// Seconds of forward, backward and optimizer, and the loss.
    fn step(&mut self) -> munjang::Result<([f64; 3], f32)> {
        let start = Instant::now();
        let output = self.model.forward(&self.batch, &ForwardOptions::training())?;
        let half = SENTENCES / 2;
        let (a, b) = (output.pooled.narrow(0, 0, half)?, output.pooled.narrow(0, half, half)?);
        let loss = losses::cosine_mse(&a, &b, &self.scores)?;
        let value = loss.to_scalar::<f32>()?;
        let forward = start.elapsed().as_secs_f64();
        let gradients = self.model.backward(&loss, vec![output])?;
        let backward = start.elapsed().as_secs_f64() - forward;
        self.optimizer.step(self.model.parameters(), &gradients, 2e-5)?;
        drop(gradients);
        Ok(([forward, backward, start.elapsed().as_secs_f64() - forward - backward], value))
    }
}

/// The PyTorch process: one line in, one step, its milliseconds out.
struct Peer {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start() -> Option<Self> {
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/training_step.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let answers = BufReader::new(child.stdout.take()?);
        let mut peer = Peer { child, answers };
        let hello = peer.line()?;
        println!("peer: {}", hello.trim());
        Some(peer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).ok()?;
        (read > 0).then_some(line)
    }

    fn step(&mut self) -> Option<f64> {
        writeln!(self.child.stdin.as_mut()?, "step").ok()?;
        self.line()?.trim().parse().ok()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> munjang::Result<()> {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(15);
    let mut ours = Ours::new()?;
    let mut peer = Peer::start();
    if peer.is_none() {
        println!("no PyTorch peer: set PYTHON to an interpreter with torch and transformers");
    }
    for _ in 0..2 {
        ours.step()?;
        peer.as_mut().and_then(Peer::step);
    }
    let (mut our_ms, mut peer_ms, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut loss = 0.0;
    for _ in 0..rounds {
        let (seconds, value) = ours.step()?;
        loss = value;
        let ms = seconds.iter().sum::<f64>() * 1e3;
        our_ms.push(ms);
        for (part, seconds) in parts.iter_mut().zip(seconds) {
            part.push(seconds * 1e3);
        }
        if let Some(theirs) = peer.as_mut().and_then(Peer::step) {
            peer_ms.push(theirs);
            ratios.push(ms / theirs);
        }
    }
    let [forward, backward, optimizer] = &mut parts;
    println!(
        "munjang  {:7.1} ms  (forward {:.1}, backward {:.1}, AdamW {:.1}; loss {loss:.4})",
        median(&mut our_ms),
        median(forward),
        median(backward),
        median(optimizer),
    );
    if !ratios.is_empty() {
        println!("PyTorch  {:7.1} ms", median(&mut peer_ms));
        println!(
            "ratio    {:7.2}     (median over {rounds} rounds; lower is better)",
            median(&mut ratios)
        );
    }
    Ok(())
}
