//! The flight recorder: what was said to a real Envoy, and what it answered.

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;

use crate::support::control_plane::ControlPlane;
use crate::support::envoy::CHAIN;
use crate::support::scene::Scene;
use crate::support::{modules, wait_until};

async fn messages(control: &ControlPlane) -> Option<Value> {
    let printed = control.ask(&["proxies", "--messages", "envoy-1", "--format", "json"]).await;
    (printed.code == Some(0)).then(|| printed.json())
}

/// The responses of the one stream, as `type answer`.
fn answers(messages: &Value) -> Vec<String> {
    let messages = messages["streams"][0]["messages"].as_array().unwrap();
    let said = messages.iter().filter_map(|message| {
        let response = message.get("response")?;
        let answer = match (response["answeredAt"].as_str()?, response["refused"].as_str()?) {
            ("", _) => "open",
            (_, "") => "ACK",
            _ => "NACK",
        };
        Some(format!("{} {answer}", message["type"].as_str()?))
    });
    said.collect()
}

#[tokio::test]
async fn an_operator_reads_what_was_said_to_an_envoy_also_after_it_has_gone() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let Some((scene, envoy)) = Scene::with_envoy(CHAIN, protocol).await else { return };
        let url = scene.control.module("hello.wasm", &modules::hello());
        scene.plugin("hello", &url, json!({"pluginConfig": {"password": "hunter2"}}));
        scene.until_header("x-hello", Some(r#"{"password":"hunter2"}"#)).await;
        let url = scene.control.module("refuses.wasm", &modules::refuses_its_configuration());
        scene.plugin("hello", &url, json!({}));
        let said = wait_until("a NACK in the recording", async || {
            let messages = messages(&scene.control).await?;
            answers(&messages).contains(&"ecds NACK".to_owned()).then_some(messages)
        })
        .await;
        let answers = answers(&said);
        // The ECDS in front is that of the staging listener.
        assert_eq!(answers[..3], ["cds ACK", "ecds ACK", "lds ACK"].map(str::to_owned), "{said:#}");
        assert!(!said.to_string().contains("hunter2"), "{said:#}");
        let text = scene.control.ask(&["proxies", "--messages", "envoy-1"]).await.stdout;
        assert!(text.contains("NACK at") && text.contains("hello"), "{text}");

        // What of the script Envoy quotes is shown nowhere.
        let script = "local password = \"hunter3\" this is \"hunter3\"";
        scene.script(script);
        let status = scene.until_all("trafficextension:default/script", "rejected", 1).await;
        let words = status["messages"][0].as_str().unwrap();
        assert!(words.starts_with(r#"script load error: [string "…"]:1: "#), "{words}");
        let said = messages(&scene.control).await.unwrap();
        assert!(said.to_string().contains("script load error"), "{said:#}");
        for shown in [said.to_string(), status.to_string(), scene.control.log()] {
            assert!(!shown.contains("hunter3") && !shown.contains("password"), "{shown}");
        }

        envoy.kill().await;
        wait_until("the end in the recording", async || {
            let messages = messages(&scene.control).await?;
            let last = messages["streams"][0]["messages"].as_array()?.last()?.clone();
            last["end"].as_str()?.contains("the client has left").then_some(())
        })
        .await;
        let printed = scene.control.ask(&["proxies", "--messages", "nobody"]).await;
        assert_eq!(printed.code, Some(2), "{printed:?}");
        let words = "wasmplane: --messages: no proxy \"nobody\" is connected, and none was lately\n";
        assert_eq!(printed.stderr, words);
    }
}
