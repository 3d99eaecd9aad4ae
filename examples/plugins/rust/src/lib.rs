//! Adds to each response the headers that its configuration names, e.g. `{"custom-header": "hello"}`.

use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

type Headers = Rc<BTreeMap<String, String>>;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// One per plugin.
#[derive(Default)]
struct Root {
    headers: Headers,
}

impl Context for Root {}

impl RootContext for Root {
    /// `false` refuses the configuration: Envoy goes on with the one before.
    fn on_configure(&mut self, _size: usize) -> bool {
        let Some(configuration) = self.get_plugin_configuration() else { return true };
        match serde_json::from_slice(&configuration) {
            Ok(headers) => {
                self.headers = Rc::new(headers);
                true
            }
            Err(_) => false,
        }
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { headers: Rc::clone(&self.headers) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One per request.
struct Request {
    headers: Headers,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for (name, value) in self.headers.iter() {
            self.add_http_response_header(name, value);
        }
        Action::Continue
    }
}
