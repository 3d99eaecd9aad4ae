//! What the admin API shows of the flight recorder.

use std::sync::Arc;
use std::time::SystemTime;

use super::view::stream_name;
use crate::protobuf::admin;
use crate::protobuf::admin::recorded_message;
use crate::snapshot::{ResourceType, Version};
use crate::xds::{Answer, Entry, Names, Recording, Said};

pub fn view(recording: &Recording) -> admin::Recording {
    admin::Recording {
        stream: recording.stream.0,
        node_id: recording.node_id.clone(),
        service: stream_name(recording.service, recording.protocol),
        forgotten: recording.forgotten,
        messages: recording.entries.iter().map(message).collect(),
    }
}

fn message(entry: &Entry) -> admin::RecordedMessage {
    let said = match &entry.said {
        Said::Request { subscribe, unsubscribe, holds } => recorded_message::Said::Request(admin::RecordedRequest {
            subscribe: names(subscribe),
            subscribe_count: count(subscribe.count),
            unsubscribe: names(unsubscribe),
            unsubscribe_count: count(unsubscribe.count),
            holds: count(*holds),
        }),
        Said::Response { nonce, resources, removed, bytes, answer } => {
            let refused = answer.as_ref().and_then(|answer| answer.refused.as_deref());
            let resource = |(name, version): &(Arc<str>, Version)| admin::RecordedResource {
                name: name.to_string(),
                version: version.to_string(),
            };
            recorded_message::Said::Response(admin::RecordedResponse {
                nonce: *nonce,
                resources: resources.first.iter().map(resource).collect(),
                resource_count: count(resources.count),
                removed: names(removed),
                removed_count: count(removed.count),
                bytes: *bytes as u64,
                answered_at: answer.as_ref().map(|Answer { at, .. }| time(*at)).unwrap_or_default(),
                refused: refused.unwrap_or_default().to_owned(),
            })
        }
        Said::End { status } => recorded_message::Said::End(status.to_string()),
    };
    admin::RecordedMessage {
        at: time(entry.at),
        r#type: entry.resource_type.map(ResourceType::short_name).unwrap_or_default().to_owned(),
        said: Some(said),
    }
}

fn names(names: &Names) -> Vec<String> {
    names.first.iter().map(ToString::to_string).collect()
}

fn count(count: usize) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

/// To the microsecond, as RFC 3339.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.6}")).unwrap_or_default()
}
