//! Recipes from TOML.
//!
//! A stage's table is taken apart by who knows its keys: name and kind, what all training stages have, and
//! the options of the kind, which refuse what is left.

use std::marker::PhantomData;

use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::{Recipe, RecipeError, Stage, StageKind, Trained, Training};

impl Recipe {
    /// Reads and checks a recipe; `file` is named in messages.
    ///
    /// # Errors
    /// A message that begins with `file:line` for anything that does not fit.
    pub fn parse(text: &str, file: &str) -> Result<Self, RecipeError> {
        let line_at = |at: usize| text[..at].bytes().filter(|&byte| byte == b'\n').count() + 1;
        let mut recipe = read(text, line_at).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            RecipeError::file(format!("{file}:{line}: {}", error.message()))
        })?;
        recipe.path = file.to_owned();
        recipe.check()?;
        Ok(recipe)
    }
}

fn read(text: &str, line_at: impl Fn(usize) -> usize) -> Result<Recipe, Error> {
    let mut document = DeTable::parse(text)?;
    let stages = document.get_mut().remove("stage");
    let mut recipe = Recipe::deserialize(toml::Deserializer::from(document))?;
    let Some(stages) = stages else { return Ok(recipe) };
    let DeValue::Array(stages) = stages.into_inner() else {
        return Err(Error::custom("expected [[stage]] tables"));
    };
    for stage in stages {
        let span = stage.span();
        let DeValue::Table(table) = stage.into_inner() else {
            return Err(Error::custom("expected [[stage]] tables"));
        };
        let line = line_at(span.start);
        recipe.stages.push(read_stage(Spanned::new(span, table), line)?);
    }
    Ok(recipe)
}

#[derive(Deserialize)]
struct Head {
    name: String,
    kind: Kind,
}

/// As recipes spell the variants of [`StageKind`].
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    PruneVocabulary,
    Center,
    ShiftStates,
    PickLayers,
    Widen,
    Contrast,
    Sts,
    Distill,
    CrossEncoder,
    LabelPairs,
    Export,
}

fn read_stage(mut table: Spanned<DeTable<'_>>, line: usize) -> Result<Stage, Error> {
    let Head { name, kind } = part(&mut table)?;
    let kind = match kind {
        Kind::PruneVocabulary => StageKind::PruneVocabulary(all(table)?),
        Kind::Center => StageKind::Center(all(table)?),
        Kind::ShiftStates => StageKind::ShiftStates(all(table)?),
        Kind::PickLayers => StageKind::PickLayers(all(table)?),
        Kind::Widen => StageKind::Widen(all(table)?),
        Kind::Contrast => StageKind::Contrast(trained(table)?),
        Kind::Sts => StageKind::Sts(trained(table)?),
        Kind::Distill => StageKind::Distill(trained(table)?),
        Kind::CrossEncoder => StageKind::CrossEncoder(trained(table)?),
        Kind::LabelPairs => StageKind::LabelPairs(all(table)?),
        Kind::Export => StageKind::Export(all(table)?),
    };
    Ok(Stage { name, kind, line })
}

fn trained<T: DeserializeOwned>(mut table: Spanned<DeTable<'_>>) -> Result<Trained<T>, Error> {
    let training: Training = part(&mut table)?;
    Ok(Trained { training, own: all(table)? })
}

/// A `T` of everything that is left.
fn all<T: DeserializeOwned>(table: Spanned<DeTable<'_>>) -> Result<T, Error> {
    T::deserialize(toml::Deserializer::from(table))
}

/// A `T` of the keys that are its fields; the others stay.
fn part<T: DeserializeOwned>(table: &mut Spanned<DeTable<'_>>) -> Result<T, Error> {
    let (mut own, mut rest) = (DeTable::new(), DeTable::new());
    for (key, value) in std::mem::take(table.get_mut()) {
        let known = fields_of::<T>().contains(&&**key.get_ref());
        if known { &mut own } else { &mut rest }.insert(key, value);
    }
    *table.get_mut() = rest;
    all(Spanned::new(table.span(), own))
}

/// The names of the fields of `T`, which serde's derived code tells any deserializer.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    let asked: Result<T, ValueError> =
        T::deserialize(Fields { found: &mut fields, lifetime: PhantomData });
    debug_assert!(asked.is_err());
    fields
}

struct Fields<'a, 'de> {
    found: &'a mut &'static [&'static str],
    lifetime: PhantomData<&'de ()>,
}

impl<'de> Deserializer<'de> for Fields<'_, 'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(ValueError::custom("only structs are asked"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ValueError> {
        *self.found = fields;
        Err(ValueError::custom("only the fields are asked for"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
