//! Taking bytes apart.

/// What is left of an input. Past its end everything is zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn word(&mut self) -> usize {
        usize::from(u16::from_le_bytes(self.array()))
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.take(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece whose length comes first, in two bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let count = self.word();
        self.take(count)
    }

    /// Damage `image` at up to 16 places: single bytes, runs of eight, copies of other parts, and its end.
    pub fn damage(&mut self, image: &mut Vec<u8>) {
        for _ in 0..self.byte() % 17 {
            let (kind, at) = (self.byte() % 8, self.place(image.len()));
            match kind {
                0..=3 => image[at] = self.byte(),
                4 => {
                    let bytes = self.array::<8>();
                    let end = (at + 8).min(image.len());
                    image[at..end].copy_from_slice(&bytes[..end - at]);
                }
                5 => {
                    let end = (at + 8).min(image.len());
                    image[at..end].fill(0xFF);
                }
                6 => {
                    let (from, count) = (self.place(image.len()), self.word());
                    let count = count.min(image.len() - at).min(image.len() - from);
                    image.copy_within(from..from + count, at);
                }
                _ => image.truncate(at.max(1)),
            }
        }
    }

    fn place(&mut self, length: usize) -> usize {
        u32::from_le_bytes(self.array()) as usize % length
    }
}
