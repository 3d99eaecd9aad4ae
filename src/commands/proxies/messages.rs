//! `wasmplane proxies --messages`: what was said on a proxy's streams.

use serde_json::{Value, json};

use crate::commands::admin_client::{ServerArgs, block_on};
use crate::commands::{Format, Outcome};
use crate::protobuf::admin::recorded_message::Said;
use crate::protobuf::admin::{
    ListMessagesRequest, RecordedMessage, RecordedRequest, RecordedResource, RecordedResponse, Recording,
};

pub fn run(server: &ServerArgs, id: String, format: Format) -> anyhow::Result<Outcome> {
    let answer = block_on(async {
        let mut client = server.connect().await?;
        Ok(client.list_messages(ListMessagesRequest { id }).await)
    })?;
    let recordings = answer.map_err(|status| anyhow::anyhow!("--messages: {}", status.message()))?;
    let recordings = recordings.into_inner().recordings;
    match format {
        Format::Text => print!("{}", recordings.iter().map(text).collect::<String>()),
        Format::Json => println!("{:#}", json!({"streams": recordings.iter().map(view).collect::<Vec<_>>()})),
    }
    Ok(Outcome::Fine)
}

fn text(recording: &Recording) -> String {
    let mut text = format!("stream {} of {}: {}\n", recording.stream, recording.node_id, recording.service);
    if recording.forgotten > 0 {
        text.push_str(&format!("  {} older messages are forgotten\n", recording.forgotten));
    }
    text.extend(recording.messages.iter().map(line));
    text
}

fn line(message: &RecordedMessage) -> String {
    let (arrow, said) = match &message.said {
        Some(Said::Request(request)) => ("->", request_text(request)),
        Some(Said::Response(response)) => ("<-", response_text(response)),
        Some(Said::End(status)) => ("--", format!("ended: {status}")),
        None => ("??", "of a newer wasmplane".to_owned()),
    };
    format!("  {} {arrow} {:<4} {said}\n", message.at, message.r#type)
}

fn request_text(request: &RecordedRequest) -> String {
    let mut said = match request.subscribe_count {
        0 if request.unsubscribe_count > 0 => String::new(),
        0 => "asks for everything".to_owned(),
        _ => format!("asks for {}", list(&request.subscribe, request.subscribe_count)),
    };
    let mut add = |words: String| {
        said = if said.is_empty() { words } else { format!("{said}; {}", words) };
    };
    if request.unsubscribe_count > 0 {
        add(format!("no longer for {}", list(&request.unsubscribe, request.unsubscribe_count)));
    }
    if request.holds > 0 {
        add(format!("holds {}", request.holds));
    }
    said
}

fn response_text(response: &RecordedResponse) -> String {
    let resources: Vec<_> =
        response.resources.iter().map(|RecordedResource { name, version }| format!("{name}@{version}")).collect();
    let mut said = format!("{} bytes, nonce {}", response.bytes, response.nonce);
    if response.resource_count > 0 {
        said.push_str(&format!(": {}", list(&resources, response.resource_count)));
    }
    if response.removed_count > 0 {
        said.push_str(&format!("; removes {}", list(&response.removed, response.removed_count)));
    }
    match (response.answered_at.as_str(), response.refused.as_str()) {
        ("", _) => said.push_str("; not answered"),
        (at, "") => said.push_str(&format!("; ACK at {at}")),
        (at, words) => said.push_str(&format!("; NACK at {at}: {words}")),
    }
    said
}

fn list(first: &[String], count: u32) -> String {
    let listed = first.join(", ");
    match count as usize - first.len().min(count as usize) {
        0 => listed,
        others => format!("{listed} and {others} more"),
    }
}

fn view(recording: &Recording) -> Value {
    json!({
        "stream": recording.stream,
        "nodeId": recording.node_id,
        "service": recording.service,
        "forgotten": recording.forgotten,
        "messages": recording.messages.iter().map(view_message).collect::<Vec<_>>(),
    })
}

fn view_message(message: &RecordedMessage) -> Value {
    let mut view = match &message.said {
        Some(Said::Request(request)) => json!({"request": {
            "subscribe": request.subscribe,
            "subscribeCount": request.subscribe_count,
            "unsubscribe": request.unsubscribe,
            "unsubscribeCount": request.unsubscribe_count,
            "holds": request.holds,
        }}),
        Some(Said::Response(response)) => json!({"response": {
            "nonce": response.nonce,
            "resources": response.resources.iter().map(|resource| {
                json!({"name": resource.name, "version": resource.version})
            }).collect::<Vec<_>>(),
            "resourceCount": response.resource_count,
            "removed": response.removed,
            "removedCount": response.removed_count,
            "bytes": response.bytes,
            "answeredAt": response.answered_at,
            "refused": response.refused,
        }}),
        Some(Said::End(status)) => json!({"end": status}),
        None => json!({}),
    };
    view["at"] = json!(message.at);
    view["type"] = json!(message.r#type);
    view
}
