//! A flight recorder: the last messages of each stream, for whoever asks later what was said.
//!
//! Names, versions, sizes and outcomes; never a module's bytes nor a plugin's configuration. One response and its answer
//! are one entry, so that an idle proxy costs about a kilobyte.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use dashmap::DashMap;
use tonic::Status;

use super::delivery::bounded;
use super::fleet::{Service, StreamId};
use super::session::{Protocol, Response};
use crate::snapshot::{ResourceType, Version};

/// Of one stream's entries, by [`Entry::size`].
const MAX_BYTES: usize = 64 << 10;
/// Names that one entry lists; the others are counted.
const MAX_NAMES: usize = 20;
/// Streams that have ended and are still known: those of a fleet of this size that has just gone.
const MAX_ENDED: usize = 256;

/// One thing that was said on a stream.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: SystemTime,
    pub resource_type: Option<ResourceType>,
    pub said: Said,
}

/// Who said what.
#[derive(Clone, Debug)]
pub enum Said {
    /// The client, beside an answer: what it asks for, no longer asks for, and holds from before.
    Request { subscribe: Names, unsubscribe: Names, holds: usize },
    /// We; and what the client answered.
    Response { nonce: u64, resources: Resources, removed: Names, bytes: usize, answer: Option<Answer> },
    /// We, last: the status that the stream ended with.
    End { status: Box<str> },
}

/// The first names of a list, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub first: Box<[Box<str>]>,
    pub count: usize,
}

/// The first resources of a response, and how many there were.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Not their whole identity: what they are made of must not outlive them here.
    pub first: Box<[(Arc<str>, Version)]>,
    pub count: usize,
}

/// What became of a response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub at: SystemTime,
    /// The client's words, where it refused.
    pub refused: Option<Arc<str>>,
}

impl Names {
    pub fn of<'a, T: AsRef<str> + 'a>(names: impl ExactSizeIterator<Item = &'a T>) -> Self {
        let count = names.len();
        Self { first: names.take(MAX_NAMES).map(|name| bounded(name.as_ref()).into()).collect(), count }
    }

    fn size(&self) -> usize {
        self.first.iter().map(|name| name.len() + size_of::<Box<str>>()).sum()
    }
}

impl Entry {
    /// What it takes in memory, about.
    fn size(&self) -> usize {
        let beside = match &self.said {
            Said::Request { subscribe, unsubscribe, .. } => subscribe.size() + unsubscribe.size(),
            Said::Response { resources, removed, answer, .. } => {
                let refused = answer.as_ref().and_then(|answer| answer.refused.as_ref()).map_or(0, |words| words.len());
                let names: usize = resources.first.iter().map(|(name, _)| name.len()).sum();
                size_of_val(&*resources.first) + names + removed.size() + refused
            }
            Said::End { status } => status.len(),
        };
        size_of::<Self>() + beside
    }
}

/// What is known of one stream.
#[derive(Clone, Debug)]
pub struct Recording {
    pub stream: StreamId,
    pub node_id: String,
    pub service: Service,
    pub protocol: Protocol,
    /// Oldest first.
    pub entries: VecDeque<Entry>,
    /// Older entries that made room.
    pub forgotten: u64,
    bytes: usize,
}

impl Recording {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.size();
        self.entries.push_back(entry);
        self.make_room();
    }

    fn answer(&mut self, resource_type: ResourceType, answered: u64, refused: Option<&str>) {
        let asked = self.entries.iter_mut().rev().find_map(|entry| match &mut entry.said {
            Said::Response { nonce, answer: answer @ None, .. }
                if *nonce == answered && entry.resource_type == Some(resource_type) =>
            {
                Some(answer)
            }
            _ => None,
        });
        let Some(answer) = asked else { return };
        let refused: Option<Arc<str>> = refused.map(|words| bounded(words).into());
        self.bytes += refused.as_ref().map_or(0, |words| words.len());
        *answer = Some(Answer { at: SystemTime::now(), refused });
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.size();
            self.forgotten += 1;
        }
    }
}

/// Recordings of all streams of a server, and of those that ended last. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Recordings(Arc<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    live: DashMap<StreamId, Arc<Mutex<Recording>>>,
    ended: Mutex<VecDeque<Recording>>,
}

impl Recordings {
    /// What was said on a stream, and on the streams of that node id which have ended, oldest first.
    pub fn of(&self, streams: &[StreamId], node_id: &str) -> Vec<Recording> {
        let mut found: Vec<_> = locked(&self.0.ended).iter().filter(|it| it.node_id == node_id).cloned().collect();
        found.extend(streams.iter().filter_map(|stream| Some(locked(&*self.0.live.get(stream)?).clone())));
        found
    }

    pub(super) fn begin(&self, stream: StreamId, node_id: String, service: Service, protocol: Protocol) -> Recorder {
        let recording =
            Recording { stream, node_id, service, protocol, entries: VecDeque::new(), forgotten: 0, bytes: 0 };
        let recording = Arc::new(Mutex::new(recording));
        self.0.live.insert(stream, recording.clone());
        Recorder { stream, recording, recordings: self.clone() }
    }

    fn end(&self, stream: StreamId) {
        let Some((_, recording)) = self.0.live.remove(&stream) else { return };
        let mut ended = locked(&self.0.ended);
        if ended.len() == MAX_ENDED {
            ended.pop_front();
        }
        ended.push_back(locked(&recording).clone());
    }
}

/// Writes one stream's recording. Dropped with the stream.
#[derive(Debug)]
pub(super) struct Recorder {
    stream: StreamId,
    recording: Arc<Mutex<Recording>>,
    recordings: Recordings,
}

impl Recorder {
    pub fn requested(&self, resource_type: ResourceType, subscribe: Names, unsubscribe: Names, holds: usize) {
        self.push(Some(resource_type), Said::Request { subscribe, unsubscribe, holds });
    }

    pub fn answered(&self, resource_type: ResourceType, nonce: u64, refused: Option<&str>) {
        locked(&self.recording).answer(resource_type, nonce, refused);
    }

    pub fn responded(&self, response: &Response, bytes: usize) {
        let first = response.resources.iter().take(MAX_NAMES);
        let resources = Resources {
            first: first.map(|resource| (resource.name.clone(), resource.version.clone())).collect(),
            count: response.resources.len(),
        };
        let (nonce, removed) = (response.nonce, Names::of(response.removed.iter()));
        let said = Said::Response { nonce, resources, removed, bytes, answer: None };
        self.push(Some(response.resource_type), said);
    }

    pub fn ended(&self, status: &Status) {
        let words = format!("{:?}: {}", status.code(), bounded(status.message()));
        self.push(None, Said::End { status: words.into() });
    }

    fn push(&self, resource_type: Option<ResourceType>, said: Said) {
        locked(&self.recording).push(Entry { at: SystemTime::now(), resource_type, said });
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.recordings.end(self.stream);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::snapshot::{Resource, Rope};

    fn response(nonce: u64, name: &str) -> Response {
        let resource = Resource::new(ResourceType::Cluster, name, Version::of_text(name), Rope::new());
        Response {
            resource_type: ResourceType::Cluster,
            nonce,
            version_info: None,
            resources: vec![Arc::new(resource)],
            removed: Vec::new(),
            sent_at: Instant::now(),
            counts_refused: false,
        }
    }

    fn begin(recordings: &Recordings, stream: u64) -> Recorder {
        recordings.begin(StreamId(stream), "envoy".into(), Service::Ads, Protocol::Delta)
    }

    #[test]
    fn a_refusal_stands_beside_the_response_that_it_answers() {
        let recordings = Recordings::default();
        let recorder = begin(&recordings, 1);
        recorder.responded(&response(1, "a"), 10);
        recorder.responded(&response(2, "b"), 10);
        recorder.answered(ResourceType::Cluster, 1, Some("bad"));
        let recording = recordings.of(&[StreamId(1)], "envoy").remove(0);
        let refused = recording.entries.iter().map(|entry| match &entry.said {
            Said::Response { nonce, answer, .. } => (*nonce, answer.as_ref().and_then(|answer| answer.refused.clone())),
            said => panic!("{said:?}"),
        });
        assert_eq!(refused.collect::<Vec<_>>(), [(1, Some("bad".into())), (2, None)]);
    }

    #[test]
    fn a_stream_that_talks_for_ever_takes_no_more_than_its_room() {
        let recordings = Recordings::default();
        let recorder = begin(&recordings, 1);
        for nonce in 0..10_000 {
            recorder.responded(&response(nonce, "a"), 10);
            recorder.answered(ResourceType::Cluster, nonce, Some("refused again"));
        }
        let recording = recordings.of(&[StreamId(1)], "envoy").remove(0);
        let size: usize = recording.entries.iter().map(Entry::size).sum();
        assert!(size <= MAX_BYTES && size > MAX_BYTES / 2, "{size}");
        assert_eq!((recording.bytes, recording.forgotten), (size, 10_000 - recording.entries.len() as u64));
    }

    #[test]
    fn what_a_proxy_said_is_known_after_it_has_gone() {
        let recordings = Recordings::default();
        for stream in 0..=MAX_ENDED as u64 {
            begin(&recordings, stream).ended(&Status::cancelled(""));
        }
        let streams: Vec<_> = recordings.of(&[], "envoy").iter().map(|recording| recording.stream.0).collect();
        assert_eq!(streams, (1..=MAX_ENDED as u64).collect::<Vec<_>>());
        assert!(recordings.of(&[StreamId(1)], "other").is_empty());
    }
}
