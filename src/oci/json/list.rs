//! Lists as Go decodes them onto earlier ones (spec §3.8).

use super::{Decode, JsonError, Parser};

/// A decoded list. Go reuses the elements of an earlier, repeated list: what a new element leaves out keeps the old
/// element's value, until `null` or `[]` discards them. So elements past `len` are remembered until the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T> {
    items: Vec<T>,
    len: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), len: 0 }
    }
}

impl<T> List<T> {
    /// The elements.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<T> {
        self.items.truncate(self.len);
        self.items
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or_default()
    }
}

impl<T: Decode> Decode for List<T> {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        if from.null()? {
            *self = Self::default();
            return Ok(());
        }
        self.len = 0;
        from.array(|p| {
            if self.len == self.items.len() {
                self.items.push(T::default());
            }
            self.len += 1;
            match self.items.get_mut(self.len - 1) {
                Some(item) => item.decode(p),
                None => p.skip(),
            }
        })?;
        if self.len == 0 {
            self.items.clear();
        }
        Ok(())
    }
}
