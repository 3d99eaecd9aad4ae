//! Walks through a tar archive, entry by entry, without writing anything anywhere. Pure.
//!
//! Long names (GNU and PAX) are put together here and not by the tar library, which would read them into memory whatever
//! their size. What two unpackers would read differently is refused.

use std::io::{self, Read};
use std::ops::ControlFlow;

use tar::{Archive, EntryType, Header};

use super::error::{ImageError, shown};
use super::limits::{Budget, bytes};
use super::path;

/// One entry, with a name that stays below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the archive.
    pub number: usize,
    /// Without slashes at the ends, `.` and `..`. Empty for the root itself.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// The target as written.
    Symlink(Vec<u8>),
    /// The path of the entry that it is another name of.
    HardLink(Vec<u8>),
    /// What it is, in words.
    Other(&'static str),
}

/// Entries and names met so far, in all layers together.
#[derive(Default)]
pub struct Tally {
    entries: usize,
    names: usize,
}

/// Bytes of one PAX header: attributes may be long, names are not.
const PAX_LIMIT: u64 = 1 << 20;

/// Header blocks that describe one and the same entry; writers need three.
const EXTRAS: usize = 16;

/// Calls `visit` for each entry with its content, until it breaks. An archive that is read to its end is read to the last
/// byte, so that one that was cut short is noticed.
pub fn walk(
    what: &str,
    reader: impl Read,
    budget: &Budget,
    tally: &mut Tally,
    visit: impl FnMut(Entry, &mut dyn Read) -> Result<ControlFlow<()>, ImageError>,
) -> Result<(), ImageError> {
    let mut archive = Archive::new(reader);
    match (Walk { what, budget, tally }).run(&mut archive, visit)? {
        ControlFlow::Break(()) => Ok(()),
        ControlFlow::Continue(()) => {
            io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| budget.judge(what, &error))?;
            Ok(())
        }
    }
}

struct Walk<'a> {
    what: &'a str,
    budget: &'a Budget,
    tally: &'a mut Tally,
}

/// What headers before an entry say of it.
#[derive(Default)]
struct Extras {
    count: usize,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Walk<'_> {
    fn run<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<ControlFlow<()>, ImageError>,
    ) -> Result<ControlFlow<()>, ImageError> {
        let entries = archive.entries().map_err(|error| self.budget.judge(self.what, &error))?;
        let mut extras = Extras::default();
        let mut number = 0;
        for entry in entries.raw(true) {
            let mut entry = entry.map_err(|error| self.budget.judge(self.what, &error))?;
            if self.take_extra(&mut entry, &mut extras)? {
                continue;
            }
            let found = self.entry(number, entry.header(), &entry, std::mem::take(&mut extras))?;
            number += 1;
            if visit(found, &mut entry)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match extras.count {
            0 => Ok(ControlFlow::Continue(())),
            _ => Err(self.broken("ends with a header that describes nothing")),
        }
    }

    /// True if the block only describes the entry after it.
    fn take_extra<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, extras: &mut Extras) -> Result<bool, ImageError> {
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                let name = self.read_name(entry)?;
                self.set_once(&mut extras.name, name)?;
            }
            EntryType::GNULongLink => {
                let link = self.read_name(entry)?;
                self.set_once(&mut extras.link, link)?;
            }
            EntryType::XHeader => {
                let records = self.read_extra(entry, "a PAX header", PAX_LIMIT)?;
                self.take_pax(&records, extras)?;
            }
            EntryType::XGlobalHeader => {
                let records = self.read_extra(entry, "a PAX header", PAX_LIMIT)?;
                self.check_global(&records)?;
                // Describes no entry in particular.
                return Ok(true);
            }
            _ => return Ok(false),
        }
        extras.count += 1;
        if extras.count > EXTRAS {
            return Err(self.broken("more than 16 headers describe one entry"));
        }
        Ok(true)
    }

    /// A name as content, which ends with a NUL.
    fn read_name(&mut self, reader: &mut impl Read) -> Result<Vec<u8>, ImageError> {
        let mut name = self.read_extra(reader, "a name", self.budget.limits.name as u64)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn read_extra(&mut self, reader: &mut impl Read, what: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        self.count_entry()?;
        let mut content = Vec::new();
        // One more for the NUL of a name, and one to see that there is more.
        let read = reader.take(limit + 2).read_to_end(&mut content);
        read.map_err(|error| self.budget.judge(self.what, &error))?;
        if content.len() as u64 > limit + 1 {
            return Err(self.too_large(what, limit));
        }
        Ok(content)
    }

    fn set_once<T>(&self, place: &mut Option<T>, value: T) -> Result<(), ImageError> {
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(self.broken("an entry has two names")),
        }
    }

    fn take_pax(&self, records: &[u8], extras: &mut Extras) -> Result<(), ImageError> {
        for (key, value) in self.pax(records)? {
            match key {
                b"path" => extras.name = Some(value.to_vec()),
                b"linkpath" => extras.link = Some(value.to_vec()),
                b"size" => {
                    let size = str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                    extras.size = Some(size.ok_or_else(|| self.broken("an entry's size is no number"))?);
                }
                _ if key.starts_with(b"GNU.sparse.") => extras.is_sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Global headers are for comments; one that names files would mean another thing to each reader.
    fn check_global(&self, records: &[u8]) -> Result<(), ImageError> {
        let is_about_files =
            |key: &[u8]| [b"path".as_slice(), b"linkpath", b"size"].contains(&key) || key.starts_with(b"GNU.sparse.");
        match self.pax(records)?.into_iter().find(|(key, _)| is_about_files(key)) {
            None => Ok(()),
            Some((key, _)) => Err(self.broken(&format!("a global header sets {} for all entries", shown(key)))),
        }
    }

    /// Records are `LENGTH KEY=VALUE\n`; a value may hold anything, line ends included.
    fn pax<'r>(&self, mut records: &'r [u8]) -> Result<Vec<Record<'r>>, ImageError> {
        let mut found = Vec::new();
        while !records.is_empty() {
            let (record, rest) = pax_record(records).ok_or_else(|| self.broken("a PAX header is malformed"))?;
            found.push(record);
            records = rest;
        }
        Ok(found)
    }

    fn entry<R: Read>(
        &mut self,
        number: usize,
        header: &Header,
        entry: &tar::Entry<'_, R>,
        extras: Extras,
    ) -> Result<Entry, ImageError> {
        self.count_entry()?;
        let written = extras.name.unwrap_or_else(|| entry.path_bytes().into_owned());
        let size = header.entry_size().map_err(|error| self.budget.judge(self.what, &error))?;
        let name = shown(&written);
        if extras.size.is_some_and(|stated| stated != size) {
            return Err(self.broken(&format!("{name} has two different sizes")));
        }
        if size > self.budget.limits.unpacked {
            return Err(self.too_large(&format!("{name} ({size} bytes)"), self.budget.limits.unpacked));
        }
        let path = self.path(&written)?;
        let link = || extras.link.clone().or_else(|| Some(entry.link_name_bytes()?.into_owned())).unwrap_or_default();
        let kind = match header.entry_type() {
            _ if extras.is_sparse => Kind::Other("a sparse file"),
            EntryType::Regular | EntryType::Continuous if written.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(self.name(link())?),
            EntryType::Link => Kind::HardLink(self.path(&link())?),
            EntryType::Char | EntryType::Block => Kind::Other("a device"),
            EntryType::Fifo => Kind::Other("a pipe"),
            // Its map may go on after the header, where a reader that does not know it sees the next entry.
            EntryType::GNUSparse => {
                return Err(self.broken(&format!("{name} is a sparse file: pack it without --sparse")));
            }
            _ => Kind::Other("an entry of an unknown kind"),
        };
        if size > 0 && !matches!(kind, Kind::File | Kind::Other(_)) {
            return Err(self.broken(&format!("{name} has content, and is not a file")));
        }
        if path.is_empty() && kind != Kind::Directory {
            return Err(self.broken("an entry has no name"));
        }
        Ok(Entry { number, path, kind, size })
    }

    fn path(&mut self, written: &[u8]) -> Result<Vec<u8>, ImageError> {
        let path = path::normal(&self.name(written.to_vec())?, self.budget.limits.depth);
        path.map_err(|reason| self.broken(&format!("{}: {reason}", shown(written))))
    }

    fn name(&mut self, name: Vec<u8>) -> Result<Vec<u8>, ImageError> {
        let limits = &self.budget.limits;
        if name.len() > limits.name {
            return Err(self.too_large("a name", limits.name as u64));
        }
        self.tally.names += name.len();
        if self.tally.names > limits.names {
            return Err(self.too_large("the names of all entries", limits.names as u64));
        }
        Ok(name)
    }

    fn count_entry(&mut self) -> Result<(), ImageError> {
        self.tally.entries += 1;
        if self.tally.entries > self.budget.limits.entries {
            let limit = format!("{} entries", self.budget.limits.entries);
            return Err(ImageError::TooLarge { what: format!("{}: too many files", self.what), limit });
        }
        Ok(())
    }

    fn broken(&self, reason: &str) -> ImageError {
        ImageError::Broken { what: self.what.to_owned(), reason: reason.to_owned() }
    }

    fn too_large(&self, what: &str, limit: u64) -> ImageError {
        ImageError::TooLarge { what: format!("{}: {what}", self.what), limit: bytes(limit) }
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn pax_record(records: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some(((&record[..equals], &record[equals + 1..]), rest))
}
