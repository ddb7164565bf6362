//! The record: which paths the job touched, how, and when first.
//!
//! Kept only where it was asked for; else it costs a look at one field. The kernel remembers names,
//! absent ones too, so "first" is all that can be known of a path. What the kernel fetches ahead
//! (READDIRPLUS) is no touch, because it does not come as a lookup.
//!
//! Rows go by path and not by inode: a path is what can be declared. A directory knows its path. A
//! file does not once it has been made, linked or moved, so its names are followed; what has several
//! counts under the one by which it was last looked up or made.

use std::collections::VecDeque;

use cas::record::{Class, Level, Recording, Row};
use cas::tree::NodeIndex;
use cas::{Name, NameBuf, RelPath};
use rustc_hash::{FxHashMap, FxHashSet};

use super::View;
use super::inode::{FileKind, InodeId, Time};
use super::read::OpenIntent;

/// The most paths of one record: a job that looks for ever more names must not take the daemon's
/// memory for it.
const ROWS_MAX: usize = 1 << 20;

/// The most absent names that are kept to explain a failure. What a job died of is among the last.
const ABSENT_MAX: usize = 4096;

/// A name and the directory that has it.
type FullName = (InodeId, NameBuf);

/// Where a row is; `None` is the root.
type Place = Option<RelPath>;

/// A record being kept.
#[derive(Debug)]
pub(super) struct Record {
    recording: Recording,
    now: Time,
    rows: FxHashMap<Place, Touch>,
    overflow: bool,
    /// Names that were looked for in vain, the last ones, in order.
    absent: VecDeque<RelPath>,
    /// Names of what is no directory and has others than the declared one, the last used last.
    names: FxHashMap<InodeId, Vec<FullName>>,
    /// Declared files that are copies from the start, so that the tree does not have them.
    copies: FxHashSet<RelPath>,
}

/// What is known of one path.
#[derive(Clone, Copy, Debug)]
struct Touch {
    classes: Classes,
    first: Time,
    bytes: Option<u64>,
    declared: bool,
}

/// A set of classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Classes(u16);

impl Classes {
    fn of(class: Class) -> Self {
        Self(1 << class as u16)
    }

    fn add(&mut self, class: Class) {
        self.0 |= Self::of(class).0;
    }

    fn iter(self) -> impl Iterator<Item = Class> {
        let has = move |class: &Class| self.0 & Self::of(*class).0 != 0;
        Class::ALL.into_iter().filter(has)
    }
}

impl Record {
    fn new(recording: Recording, now: Time, copies: FxHashSet<RelPath>) -> Self {
        Self {
            recording,
            now,
            rows: FxHashMap::default(),
            overflow: false,
            absent: VecDeque::new(),
            names: FxHashMap::default(),
            copies,
        }
    }

    /// Whether a class is told at all.
    fn wants(&self, class: Class) -> bool {
        match self.recording.level {
            Level::None => false,
            Level::Inputs => (Class::Exec..=Class::List).contains(&class),
            Level::Full => true,
        }
    }

    fn add(&mut self, place: Place, class: Class, declared: bool, bytes: Option<u64>) {
        if self.recording.level < Level::Full && !declared {
            return;
        }
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&place) {
            self.overflow = true;
            return;
        }
        let touch = self.rows.entry(place).or_insert(Touch {
            classes: Classes::default(),
            first: self.now,
            bytes: None,
            declared,
        });
        touch.classes.add(class);
        touch.bytes = touch.bytes.or(bytes);
    }

    fn add_absent(&mut self, path: RelPath) {
        if self.absent.len() == ABSENT_MAX {
            self.absent.pop_front();
        }
        self.absent.push_back(path);
    }

    fn learn_name(&mut self, id: InodeId, name: FullName) {
        let names = self.names.entry(id).or_default();
        names.retain(|known| *known != name);
        names.push(name);
    }

    fn unlearn_name(&mut self, id: InodeId, name: &FullName) {
        if let Some(names) = self.names.get_mut(&id) {
            names.retain(|known| known != name);
            if names.is_empty() {
                self.names.remove(&id);
            }
        }
    }

    /// All rows, sorted, without the directories that were only walked through.
    fn rows(&self, born: Time) -> Vec<Row> {
        let mut places: Vec<_> = self.rows.iter().collect();
        places.sort_by_key(|(place, _)| *place);
        let mut below = places.iter().skip(1);
        let walked_through = |(place, touch): &(&Place, &Touch)| {
            let next = below.next().and_then(|(next, _)| next.as_ref());
            let leads_on = next
                .zip(place.as_ref())
                .is_some_and(|(a, b)| a.starts_with(b));
            touch.classes == Classes::of(Class::Stat) && leads_on
        };
        let walked: Vec<bool> = places.iter().map(walked_through).collect();
        let told = places.iter().zip(walked).filter(|(_, walked)| !walked);
        told.filter_map(|((place, touch), _)| touch.row((*place).clone(), born))
            .collect()
    }
}

impl Touch {
    fn row(&self, path: Place, born: Time) -> Option<Row> {
        let mut classes = self.classes.iter();
        let mut row = Row {
            path,
            class: classes.next()?,
            also: classes.collect(),
            declared: self.declared,
            bytes: None,
            bytes_kind: None,
            first: self.first.microseconds_since(born),
        };
        if let Some(bytes) = self.bytes {
            row.set_bytes(bytes);
        }
        Some(row)
    }
}

impl Time {
    fn microseconds_since(self, earlier: Time) -> u64 {
        let micros =
            |time: Time| i128::from(time.seconds) * 1_000_000 + i128::from(time.nanoseconds) / 1000;
        u64::try_from(micros(self) - micros(earlier)).unwrap_or(0)
    }
}

impl<S: Clone> View<S> {
    /// Begins a record. What the job was given to rewrite is there by now, and counts as declared.
    pub fn keep_record(&mut self, recording: Recording) {
        if recording == Recording::default() {
            return;
        }
        let copies = self.report().outputs.into_iter().map(|(path, _)| path);
        let record = Record::new(recording, self.born, copies.collect());
        self.record = Some(Box::new(record));
    }

    /// Says what the time is, for the record of what follows.
    pub fn tick(&mut self, now: Time) {
        if let Some(record) = &mut self.record {
            record.now = now;
        }
    }

    /// Does something that is no doing of the job.
    pub fn unrecorded<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let record = self.record.take();
        let done = act(self);
        self.record = record;
        done
    }

    /// What was recorded so far; `None` if no rows were asked for.
    pub fn record(&self) -> Option<cas::record::Record> {
        let record = self.record.as_ref();
        let record = record.filter(|record| record.recording.level > Level::None)?;
        let rows = record.rows(self.born);
        Some(cas::record::Record {
            unused: self.unused(record, &rows),
            rows,
            overflow: record.overflow,
        })
    }

    /// The last names that were looked for in vain, in that order, if they were asked for.
    pub fn absent(&self) -> Vec<RelPath> {
        let absent = self.record.iter().flat_map(|record| &record.absent);
        absent.cloned().collect()
    }

    /// Declared paths that have no row and lead to none. Costs as much as the directories that were
    /// used hold.
    fn unused(&self, record: &Record, rows: &[Row]) -> Vec<RelPath> {
        let used: FxHashSet<&RelPath> = rows.iter().filter_map(|row| row.path.as_ref()).collect();
        let mut entered = FxHashSet::from_iter([NodeIndex::ROOT]);
        for path in &used {
            let mut at = Some(NodeIndex::ROOT);
            for name in path.names() {
                at = at.and_then(|at| self.tree.child(at, name));
                entered.extend(at);
            }
        }
        let children = entered.iter().flat_map(|node| self.tree.children(*node));
        let untouched = children
            .map(NodeIndex)
            .filter(|node| !entered.contains(node));
        let unused = untouched.filter_map(|node| self.tree.path(node));
        let copies = record.copies.iter().filter(|path| !used.contains(path));
        let mut unused: Vec<_> = unused.chain(copies.cloned()).collect();
        unused.sort();
        unused
    }

    fn records(&self, class: Class) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.wants(class))
    }

    /// Notes what was done with an inode, by the path that is known of it.
    pub(super) fn note(&mut self, id: InodeId, class: Class) {
        if !self.records(class) {
            return;
        }
        if let Some(place) = self.place_of(id) {
            self.add_row(place, class, Some(id));
        }
    }

    /// Notes what was done with a name.
    pub(super) fn note_name(&mut self, parent: InodeId, name: Name<'_>, class: Class) {
        if self.records(class)
            && let Some(path) = self.path_below(parent, name)
        {
            self.add_row(Some(path), class, None);
        }
    }

    /// Notes that a name was found.
    pub(super) fn note_found(&mut self, parent: InodeId, name: Name<'_>, id: InodeId) {
        // Inputs that nothing has changed are in the tree, by their only name.
        let moves = self.table.contains_key(&id) && self.kind_of(id) != Ok(FileKind::Directory);
        if let Some(record) = &mut self.record
            && moves
        {
            record.learn_name(id, (parent, name.to_owned()));
        }
        self.note_name(parent, name, Class::Stat);
    }

    /// Follows a name that is about to point at something else, or at nothing.
    pub(super) fn follow_name(&mut self, parent: InodeId, name: Name<'_>, to: Option<InodeId>) {
        if self.record.is_none() {
            return;
        }
        let from = self.child(parent, name);
        let to = to.filter(|id| self.kind_of(*id) != Ok(FileKind::Directory));
        let name = (parent, name.to_owned());
        if let Some(record) = &mut self.record {
            if let Some(from) = from {
                record.unlearn_name(from, &name);
            }
            if let Some(to) = to {
                record.learn_name(to, name);
            }
        }
    }

    /// Notes that a name was looked for in vain.
    pub(super) fn note_absent(&mut self, parent: InodeId, name: Name<'_>) {
        let wanted = self
            .record
            .as_ref()
            .is_some_and(|record| record.recording.absent);
        if wanted
            && let Some(path) = self.path_below(parent, name)
            // A declared one is missing because the job has removed it.
            && self.tree.find(&path).is_none()
            && let Some(record) = &mut self.record
        {
            record.add_absent(path);
        }
        self.note_name(parent, name, Class::ProbeAbsent);
    }

    /// Notes an open that was allowed. An input that may be changed is not written to by that.
    pub(super) fn note_open(&mut self, id: InodeId, intent: OpenIntent, staged: bool) {
        match intent {
            OpenIntent { execute: true, .. } => self.note(id, Class::Exec),
            OpenIntent { read: true, .. } => self.note(id, Class::Read),
            _ => {}
        }
        if intent.write && staged {
            self.note(id, Class::Write);
        }
    }

    /// Notes that a file was open for reading as soon as it was made. What is written to it then needs
    /// no note.
    pub fn note_new(&mut self, id: InodeId, intent: OpenIntent) {
        if intent.read {
            self.note(id, Class::Read);
        }
    }

    fn add_row(&mut self, place: Place, class: Class, id: Option<InodeId>) {
        let declared = match (&place, &self.record) {
            (Some(path), Some(record)) => {
                self.tree.find(path).is_some() || record.copies.contains(path)
            }
            _ => true,
        };
        let read = matches!(class, Class::Read | Class::Exec);
        let bytes = id.filter(|_| read).and_then(|id| self.input_size(id));
        if let Some(record) = &mut self.record {
            record.add(place, class, declared, bytes);
        }
    }

    /// The length of a file whose content is still the declared one.
    fn input_size(&self, id: InodeId) -> Option<u64> {
        match self.attributes(id) {
            Ok((attributes, None)) => Some(attributes.size),
            _ => None,
        }
    }

    /// The path that is known of an inode, if it has one.
    fn place_of(&self, id: InodeId) -> Option<Place> {
        if id == InodeId::ROOT {
            return Some(None);
        }
        if self.table.get(&id).is_some_and(|inode| inode.links == 0) {
            return None;
        }
        if self.kind_of(id) == Ok(FileKind::Directory) {
            return self.directory_path(id).map(Some);
        }
        let names = self
            .record
            .as_ref()
            .and_then(|record| record.names.get(&id));
        if let Some((parent, name)) = names.and_then(|names| names.last()) {
            return self.path_below(*parent, name.as_name()).map(Some);
        }
        let (_, node) = self.declared(id).ok()?;
        let name = Name::new(node.name).ok()?;
        self.path_below(Self::id_of(node.parent), name).map(Some)
    }

    /// The path of a name in a directory, if that has one.
    fn path_below(&self, parent: InodeId, name: Name<'_>) -> Option<RelPath> {
        match parent {
            InodeId::ROOT => RelPath::from_names([name]),
            _ if self.directory_state(parent) != Ok(true) => None,
            _ => Some(self.directory_path(parent)?.join(name)),
        }
    }
}
