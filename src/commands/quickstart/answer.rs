//! One request through Envoy, and what its answer says about the plugin.

use std::fmt;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

/// What is asked each time.
pub struct Question {
    client: Client,
    url: String,
}

impl Question {
    pub fn new(port: u16) -> anyhow::Result<Self> {
        // Loopback is never reached through a proxy, whatever the environment says.
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { client, url: format!("http://127.0.0.1:{port}/") })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn ask(&self) -> Answer {
        match self.client.get(&self.url).send().await {
            Ok(response) => {
                let hello = response.headers().get("x-hello");
                Answer::Response {
                    status: response.status(),
                    hello: hello.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
                }
            }
            Err(error) => Answer::None(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

/// An HTTP response, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Response { status: StatusCode, hello: Option<String> },
    None(String),
}

impl Answer {
    /// Is this the upstream's answer, without the plugin (`None`) or with it and this greeting?
    pub fn is(&self, greeting: Option<&str>) -> bool {
        let Self::Response { status: StatusCode::OK, hello } = self else { return false };
        match (hello, greeting) {
            (None, None) => true,
            (Some(hello), Some(greeting)) => {
                serde_json::from_str::<Value>(hello).is_ok_and(|hello| hello == json!({"greeting": greeting}))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response { status, hello: Some(hello) } => write!(f, "{status}, x-hello: {hello}"),
            Self::Response { status, hello: None } => write!(f, "{status}, no x-hello"),
            Self::None(error) => write!(f, "no answer: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: StatusCode, hello: Option<&str>) -> Answer {
        Answer::Response { status, hello: hello.map(str::to_owned) }
    }

    #[test]
    fn an_answer_is_right_by_status_and_by_the_meaning_of_its_header() {
        let with_plugin = response(StatusCode::OK, Some(r#"{ "greeting": "hello" }"#));
        assert!(with_plugin.is(Some("hello")));
        assert!(!with_plugin.is(Some("good day")));
        assert!(!with_plugin.is(None));
        assert!(response(StatusCode::OK, None).is(None));
        assert!(!response(StatusCode::INTERNAL_SERVER_ERROR, None).is(None));
        assert!(!Answer::None("refused".into()).is(None));
    }
}
