//! A decoded field list: names and values behind each other in one buffer that is used again and again.

/// Fields in the order they came.
#[derive(Debug, Default)]
pub(crate) struct FieldList {
    pub(crate) bytes: Vec<u8>,
    fields: Vec<Place>,
}

/// The place of a field: the value follows the name.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    name: u32,
    value: u32,
}

impl FieldList {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Adds the field whose name starts at `start` and ends at `middle`, where its value begins.
    pub(crate) fn close(&mut self, start: usize, middle: usize) {
        let (name, value) = ((middle - start) as u32, (self.bytes.len() - middle) as u32);
        self.fields.push(Place { start: start as u32, name, value });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.fields.iter().map(|f| {
            let start = f.start as usize;
            let middle = start + f.name as usize;
            let name = self.bytes.get(start..middle).unwrap_or_default();
            (name, self.bytes.get(middle..middle + f.value as usize).unwrap_or_default())
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }
}
