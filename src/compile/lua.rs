//! One plugin revision as Envoy's Lua filter.

use serde_json::json;

use super::content::Content;
use super::type_urls;
use crate::model::{LuaProgram, PluginRevision};
use crate::snapshot::{Part, Rope, Version};

/// The filter of a script. It needs no V8, and comes and goes by ECDS as a module does.
pub fn filter(revision: &PluginRevision, program: &LuaProgram) -> Content {
    // envoy.extensions.filters.http.lua.v3.Lua: default_source_code = 3; core.v3.DataSource: inline_string = 3.
    let mut source_code = Rope::new();
    source_code.string(3, &program.source);
    let mut lua = Rope::new();
    lua.message(3, &source_code);

    let version = Version::of(&json!({"type_url": type_urls::HTTP_LUA, "inline_string": program.source}));
    let owner = revision.id().to_string().into();
    let part = Part { owner, revision: revision.revision.to_string().into() };
    Content { any: Rope::any(type_urls::HTTP_LUA, &lua), version, parts: vec![part], fetched: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compile::fixtures::plugin;
    use crate::model::{Code, Program};
    use crate::protobuf::to_json;

    #[test]
    fn a_script_is_the_default_source_code_of_a_lua_filter() {
        let program = LuaProgram { source: "function envoy_on_request(handle) end".into() };
        let mut plugin = plugin("shop/a");
        plugin.program = Program::Lua(program.clone());
        let revision = PluginRevision::new(Arc::new(plugin), Code::InSpecification);
        let body = filter(&revision, &program).into_resource("x").body.to_bytes();
        assert_eq!(
            to_json("envoy.config.core.v3.TypedExtensionConfig", &body)["typed_config"],
            json!({"@type": type_urls::HTTP_LUA, "default_source_code": {"inline_string": program.source}})
        );
    }
}
