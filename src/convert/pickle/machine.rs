//! The stack machine of pickles, which calls nothing.

use std::collections::HashMap;

use super::{Numbers, Tensor};
use crate::error::{Error, Result};

/// Instructions of one pickle. A state dict of a 24-layer BERT has 30,000.
const MAX_INSTRUCTIONS: usize = 4 << 20;

/// Where a value lies among a [`Pickle`]'s values.
pub(super) type Id = usize;

/// A value of a pickle. What it holds lies beside it, so copies are numbers, and neither nesting nor
/// repetition costs more than the instructions that made it.
#[derive(Clone, Debug)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    /// A number that no state dict's shape needs: a float, a large integer.
    Other,
    /// A class or function, by module and name.
    Global(Box<str>, Box<str>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// What would be called, and with what.
    Call(Id, Id),
    /// Something that is stored elsewhere in the file.
    Persistent(Id),
}

/// What a pickle comes to.
pub(super) struct Pickle {
    values: Vec<Object>,
    result: Id,
}

impl Pickle {
    /// A value.
    pub(super) fn value(&self, id: Id) -> &Object {
        &self.values[id]
    }

    /// What the pickle is.
    pub(super) fn result(&self) -> &Object {
        &self.values[self.result]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match &self.values[id] {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.values[id] {
            Object::Int(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.tuple(id)?.iter().map(|&id| self.size(id)).collect()
    }

    /// The value of a key of the dict that the pickle is.
    pub(super) fn get(&self, name: &str) -> Option<Id> {
        let Object::Dict(items) = &self.values[self.result] else { return None };
        items.iter().find(|&&(key, _)| self.text(key) == Some(name)).map(|&(_, value)| value)
    }

    /// The tensors of the dict; of a `state_dict` inside where a trainer wrapped it.
    pub(super) fn state_dict(&self) -> Result<HashMap<String, Tensor>> {
        let wrapped = ["state_dict", "model_state_dict", "model"].iter().find_map(|name| {
            self.get(name).filter(|&id| matches!(self.values[id], Object::Dict(_)))
        });
        let Object::Dict(items) = &self.values[wrapped.unwrap_or(self.result)] else {
            return Err(Error::checkpoint_unsupported(
                "it holds no dict of tensors but a whole object; save model.state_dict() instead",
            ));
        };
        let mut tensors = HashMap::new();
        for &(name, value) in items {
            if let (Some(name), Some(tensor)) = (self.text(name), self.tensor(value)) {
                tensors.insert(name.to_owned(), tensor);
            }
        }
        if tensors.is_empty() {
            return Err(Error::checkpoint_unsupported("it holds no tensors"));
        }
        Ok(tensors)
    }

    /// The tensor that a call to one of torch's functions would make.
    fn tensor(&self, id: Id) -> Option<Tensor> {
        let (name, args) = self.torch_call(id)?;
        match name {
            // A parameter is a tensor with a flag.
            "_rebuild_parameter" => match self.torch_call(*args.first()?)? {
                ("_rebuild_tensor_v2", args) => self.view(args),
                _ => None,
            },
            "_rebuild_tensor_v2" => self.view(args),
            _ => None,
        }
    }

    /// Name and arguments of a call to a function of `torch._utils`.
    fn torch_call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Object::Call(callable, args) = self.values[id] else { return None };
        let Object::Global(module, name) = &self.values[callable] else { return None };
        (&**module == "torch._utils").then_some((name, self.tuple(args)?))
    }

    /// The tensor of `_rebuild_tensor_v2`'s arguments: storage, offset, size, stride, ….
    fn view(&self, args: &[Id]) -> Option<Tensor> {
        let &[storage, offset, shape, strides, ..] = args else { return None };
        let Object::Persistent(id) = self.values[storage] else { return None };
        let &[_, class, key, ..] = self.tuple(id)? else { return None };
        let Object::Global(_, class) = &self.values[class] else { return None };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        (shape.len() == strides.len()).then_some(Tensor {
            shape,
            strides,
            offset: self.size(offset)?,
            numbers: Numbers::of_storage(class),
            class: class.to_string(),
            storage: self.text(key)?.to_owned(),
        })
    }
}

/// The stack machine.
#[derive(Default)]
pub(super) struct Machine {
    values: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at the marks set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

/// What one instruction came to.
enum Step {
    Next,
    End(Id),
    /// An instruction that this machine does not have.
    Unknown(u8),
}

impl Machine {
    /// Runs one pickle and leaves `bytes` after it.
    pub(super) fn run(bytes: &mut &[u8]) -> Result<Pickle> {
        let mut machine = Machine::default();
        for _ in 0..MAX_INSTRUCTIONS {
            match machine.step(bytes) {
                Some(Step::Next) => {}
                Some(Step::End(result)) => return Ok(Pickle { values: machine.values, result }),
                Some(Step::Unknown(instruction)) => {
                    return Err(Error::checkpoint_unsupported(format!(
                        "its pickle has the instruction {instruction:#04x}, which no state dict needs; save \
                         model.state_dict() by torch.save with its default protocol"
                    )));
                }
                None => {
                    return Err(Error::checkpoint_invalid(
                        "its pickle is damaged or cut off; download it again",
                    ));
                }
            }
        }
        Err(Error::checkpoint_unsupported(format!(
            "its pickle has over {MAX_INSTRUCTIONS} instructions"
        )))
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.values.len());
        self.values.push(object);
    }

    fn pop(&mut self) -> Option<Id> {
        // Nothing below a mark belongs to what came after it.
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return None;
        }
        self.stack.pop()
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop()?;
        Some(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Option<&mut Object> {
        let &id = self.stack.last()?;
        Some(&mut self.values[id])
    }

    fn push_tuple(&mut self, len: usize) -> Option<()> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Object::Tuple(items.into()));
        Some(())
    }

    fn call(&mut self) -> Option<()> {
        let (args, callable) = (self.pop()?, self.pop()?);
        let is_dict = matches!(&self.values[callable], Object::Global(module, name)
            if &**module == "collections" && matches!(&**name, "OrderedDict" | "defaultdict"));
        self.push(if is_dict { Object::Dict(Vec::new()) } else { Object::Call(callable, args) });
        Some(())
    }

    /// One instruction; `None` where the bytes make no sense.
    fn step(&mut self, bytes: &mut &[u8]) -> Option<Step> {
        let instruction = take(bytes, 1)?[0];
        match instruction {
            // PROTO
            0x80 => drop(take(bytes, 1)?),
            // STOP
            b'.' => return Some(Step::End(self.pop()?)),
            b'(' => self.marks.push(self.stack.len()),
            // BININT, BININT1, BININT2, LONG1, BINFLOAT; BINUNICODE, SHORT_BINUNICODE; GLOBAL
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | b'G' | b'X' | 0x8c | b'c' | b')'
            | b']' | b'}' => {
                let object = read_leaf(instruction, bytes)?;
                self.push(object);
            }
            0x85..=0x87 => self.push_tuple(usize::from(instruction - 0x84))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items.into()));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items));
            }
            // APPEND, APPENDS
            b'a' | b'e' => {
                let items =
                    if instruction == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
                let Object::List(list) = self.top()? else { return None };
                list.extend(items);
            }
            // SETITEM, SETITEMS
            b's' | b'u' => {
                let items = if instruction == b's' {
                    let (value, key) = (self.pop()?, self.pop()?);
                    vec![key, value]
                } else {
                    self.pop_to_mark()?
                };
                let (pairs, []) = items.as_chunks::<2>() else { return None };
                let Object::Dict(dict) = self.top()? else { return None };
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
            b'q' | b'r' => {
                let place = memo_place(bytes, instruction == b'r')?;
                self.memo.insert(place, *self.stack.last()?);
            }
            b'h' | b'j' => {
                let place = memo_place(bytes, instruction == b'j')?;
                self.stack.push(*self.memo.get(&place)?);
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id));
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => self.call()?,
            // BUILD: the attributes of an object, such as a dict's `_metadata`.
            b'b' => drop(self.pop()?),
            other => return Some(Step::Unknown(other)),
        }
        Some(Step::Next)
    }
}

/// The value of an instruction that takes nothing from the stack.
fn read_leaf(instruction: u8, bytes: &mut &[u8]) -> Option<Object> {
    let text = |bytes: &mut &[u8], len: usize| {
        Some(Object::Text(std::str::from_utf8(take(bytes, len)?).ok()?.into()))
    };
    Some(match instruction {
        0x88 => Object::Bool(true),
        0x89 => Object::Bool(false),
        b'J' => Object::Int(i32::from_le_bytes(take(bytes, 4)?.try_into().ok()?).into()),
        b'K' => Object::Int(take(bytes, 1)?[0].into()),
        b'M' => Object::Int(u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?).into()),
        0x8a => {
            let len = take(bytes, 1)?[0];
            long(take(bytes, len.into())?)
        }
        b'G' => {
            take(bytes, 8)?;
            Object::Other
        }
        b'X' => {
            let len = u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
            text(bytes, usize::try_from(len).ok()?)?
        }
        0x8c => {
            let len = take(bytes, 1)?[0];
            text(bytes, len.into())?
        }
        b'c' => {
            let (module, name) = (line(bytes)?, line(bytes)?);
            Object::Global(module.into(), name.into())
        }
        b')' => Object::Tuple(Box::new([])),
        b']' => Object::List(Vec::new()),
        b'}' => Object::Dict(Vec::new()),
        _ => Object::None,
    })
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let text = std::str::from_utf8(take(bytes, end)?).ok()?;
    take(bytes, 1)?;
    Some(text)
}

fn memo_place(bytes: &mut &[u8], long: bool) -> Option<u32> {
    Some(match long {
        true => u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?),
        false => take(bytes, 1)?[0].into(),
    })
}

/// A little-endian integer in two's complement; [`Object::Other`] beyond 64 bits.
fn long(digits: &[u8]) -> Object {
    if digits.len() > 8 {
        return Object::Other;
    }
    let sign = if digits.last().is_some_and(|digit| digit & 0x80 != 0) { 0xFF } else { 0 };
    let mut value = [sign; 8];
    value[..digits.len()].copy_from_slice(digits);
    Object::Int(i64::from_le_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_never_made_and_nothing_else_is_a_tensor() {
        let program = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.";
        let pickle = Machine::run(&mut &program[..]).unwrap();
        assert!(matches!(pickle.values[pickle.result], Object::Call(..)));
        assert!(pickle.tensor(pickle.result).is_none());
        let error = pickle.state_dict().map(drop).unwrap_err();
        assert_eq!(error.code(), "checkpoint_unsupported");
    }

    #[test]
    fn nested_copies_cost_nothing() {
        // A tuple of the tuple before, twice: 2⁶⁰ values if copied.
        let mut program = b"\x80\x02)q\x00".to_vec();
        for _ in 0..60 {
            program.extend(b"h\x00h\x00\x86q\x00");
        }
        // And a million tuples in each other, which a recursive drop would not survive.
        program.extend([0x85].repeat(1_000_000));
        program.push(b'.');
        assert!(Machine::run(&mut program.as_slice()).is_ok());
    }

    #[test]
    fn damaged_programs_are_errors() {
        let program = b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u.";
        Machine::run(&mut &program[..]).unwrap();
        for len in 0..program.len() {
            assert!(Machine::run(&mut &program[..len]).is_err(), "{len}");
        }
        for bad in [
            &b"a."[..],
            b"(.",
            b")(a.",
            b"K\x01K\x02s.",
            b"h\x05.",
            b"X\xff\xff\xff\xffa.",
            b"\xff.",
        ] {
            assert!(Machine::run(&mut &bad[..]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn long_integers_have_signs() {
        let value = |digits: &[u8]| match long(digits) {
            Object::Int(value) => Some(value),
            _ => None,
        };
        assert_eq!(value(&[]), Some(0));
        assert_eq!(value(&[0xFF]), Some(-1));
        assert_eq!(value(&[0, 0x80, 0]), Some(0x8000));
        assert_eq!(value(&[1; 9]), None);
    }
}
