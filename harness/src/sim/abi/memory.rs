//! One host call's view of the guest's memory. Every access is checked: a pointer outside the memory is
//! `InvalidMemoryAccess`, as Envoy has it, and never a crash of the host.

use std::cell::Cell;

use super::Status;
use crate::sim::host::Guest;

/// The memory and the state of the guest that calls.
pub(crate) struct Call<'a> {
    memory: &'a mut [u8],
    /// Bytes that were read.
    taken: Cell<usize>,
    /// The guest that calls.
    pub guest: &'a mut Guest,
}

// === impl Call ===

impl<'a> Call<'a> {
    pub(super) fn new(memory: &'a mut [u8], guest: &'a mut Guest) -> Self {
        Self {
            memory,
            taken: Cell::new(0),
            guest,
        }
    }

    /// The bytes at `at`.
    ///
    /// # Errors
    /// [`Status::InvalidMemoryAccess`], as for everything below.
    pub(crate) fn read(&self, at: u32, size: u32) -> Result<&[u8], Status> {
        let start = at as usize;
        let bytes = start
            .checked_add(size as usize)
            .and_then(|end| self.memory.get(start..end))
            .ok_or(Status::InvalidMemoryAccess)?;
        self.taken.set(self.taken.get() + bytes.len());
        Ok(bytes)
    }

    /// Bytes that were read so far.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Text at `at`; what is not UTF-8 is shown as such.
    pub(crate) fn text(&self, at: u32, size: u32) -> Result<String, Status> {
        Ok(String::from_utf8_lossy(self.read(at, size)?).into_owned())
    }

    /// A `u32` at `at`.
    pub(crate) fn read_u32(&self, at: u32) -> Result<u32, Status> {
        let bytes = self.read(at, 4)?;
        let array = bytes.try_into().map_err(|_| Status::InvalidMemoryAccess)?;
        Ok(u32::from_le_bytes(array))
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Status> {
        let start = at as usize;
        let place = start
            .checked_add(bytes.len())
            .and_then(|end| self.memory.get_mut(start..end))
            .ok_or(Status::InvalidMemoryAccess)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes a `u32`.
    pub(crate) fn write_u32(&mut self, at: u32, value: u32) -> Result<(), Status> {
        self.write(at, &value.to_le_bytes())
    }

    /// Writes a `u64`.
    pub(crate) fn write_u64(&mut self, at: u32, value: u64) -> Result<(), Status> {
        self.write(at, &value.to_le_bytes())
    }
}
