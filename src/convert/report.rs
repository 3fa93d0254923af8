//! What became of a folder's files: read and used, read in part, or left alone.

use std::fmt;

use super::fields::Fields;

/// One finding about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file's path in the folder, with `/`.
    pub file: String,
    /// What was taken from it, or what was not and why.
    pub what: String,
    /// Which of the two.
    pub kind: Kind,
}

/// What became of (a part of) a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It decides what the model computes.
    Used,
    /// It says something that does not concern sentence embeddings, or another form of what was read.
    NotNeeded,
    /// It says something that may concern them, and the model does not do it.
    NotUsed,
    /// It was obeyed, and the result is probably not what was meant.
    Doubtful,
}

/// What a conversion read, what it used and what it did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of reading.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, kind: Kind, file: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding { file: file.into(), what: what.into(), kind });
    }

    pub(super) fn used(&mut self, file: impl Into<String>, what: impl Into<String>) {
        self.add(Kind::Used, file, what);
    }

    pub(super) fn not_used(&mut self, file: impl Into<String>, what: impl Into<String>) {
        self.add(Kind::NotUsed, file, what);
    }

    /// Names the keys of a file that nobody asked for, `known` ones left out.
    pub(super) fn not_read(&mut self, file: &str, fields: &Fields, known: &[&str]) {
        let unread = fields.unread(known);
        if !unread.is_empty() {
            self.not_used(file, unread.join(", "));
        }
    }

    pub(super) fn not_needed(&mut self, file: impl Into<String>, what: impl Into<String>) {
        self.add(Kind::NotNeeded, file, what);
    }

    pub(super) fn doubtful(&mut self, file: impl Into<String>, what: impl Into<String>) {
        self.add(Kind::Doubtful, file, what);
    }

    /// What a strict conversion does not accept.
    pub fn complaints(&self) -> impl Iterator<Item = &Finding> {
        let accepted = |kind| matches!(kind, Kind::Used | Kind::NotNeeded);
        self.findings.iter().filter(move |finding| !accepted(finding.kind))
    }

    /// Whether anything was found about a file.
    pub(super) fn names(&self, file: &str) -> bool {
        self.findings.iter().any(|finding| finding.file == file)
    }

    /// Findings of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.kind == kind)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, word) in [
            (Kind::Used, "used"),
            (Kind::NotNeeded, "not needed"),
            (Kind::NotUsed, "not used"),
            (Kind::Doubtful, "doubtful"),
        ] {
            for Finding { file, what, .. } in self.of(kind) {
                writeln!(f, "{word:10}  {file}{}{what}", if what.is_empty() { "" } else { ": " })?;
            }
        }
        Ok(())
    }
}
