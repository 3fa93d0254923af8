//! Numbers in place of texts.

use std::collections::HashMap;

/// Texts by their numbers.
#[derive(Default)]
pub(super) struct Numbers {
    texts: Vec<String>,
    places: HashMap<String, u32>,
}

impl Numbers {
    pub(super) fn of(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.places.get(text) {
            return number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), number);
        number
    }

    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }
}
