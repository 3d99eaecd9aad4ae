//! Which image of an index holds the module. Pure.
//!
//! A module is the same for every processor, so an index either has an image that says `wasm` or `wasi`, or its images
//! hold the same module: then linux/amd64 stands for all, as in Istio.

use super::document::{Descriptor, Index, Platform};
use super::error::{ImageError, listed};
use super::media_types::{DOCKER_LIST, OCI_INDEX};

/// Marks what a build tool puts beside its images (provenance, bills of material).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

impl Index {
    /// The image to take: for `wasip1`, else `wasi`, else another `wasm`, else `js`, else linux/amd64, else the only one.
    /// Of several that are as good as one another, the first.
    pub fn choose(&self) -> Result<&Descriptor, ImageError> {
        let images: Vec<&Descriptor> = self.entries.iter().filter(|entry| is_image(entry)).collect();
        let ranked = images.iter().filter_map(|image| Some((rank(image.platform.as_ref()?)?, *image)));
        // `min_by_key` keeps the first of equals.
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, image)| image);
        match (best, images.as_slice()) {
            (Some(best), _) => Ok(best),
            (None, [only]) => Ok(only),
            (None, _) => Err(ImageError::NoPlatform { offered: offered(&images) }),
        }
    }
}

fn is_image(entry: &Descriptor) -> bool {
    let is_index = [OCI_INDEX, DOCKER_LIST].contains(&entry.media_type.as_str());
    !is_index && !entry.annotations.contains_key(REFERENCE_TYPE)
}

/// Lower is better. Components (`wasip2`) are no better than any other platform: Envoy cannot load them.
fn rank(platform: &Platform) -> Option<u8> {
    match (platform.os.as_str(), platform.architecture.as_str()) {
        ("wasip1", _) => Some(0),
        ("wasi", _) => Some(1),
        ("wasip2" | "wasip3", _) => None,
        ("js", _) => Some(3),
        (_, "wasm" | "wasm32") => Some(2),
        ("linux", "amd64") => Some(4),
        _ => None,
    }
}

fn offered(images: &[&Descriptor]) -> String {
    let names: Vec<String> = images
        .iter()
        .map(|image| match &image.platform {
            Some(platform) => format!("{}/{}", platform.os, platform.architecture),
            None => "no platform".to_owned(),
        })
        .collect();
    listed(names.iter().map(String::as_bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Digest;
    use crate::modules::image::media_types::OCI_MANIFEST;

    fn entry(platform: &str) -> Descriptor {
        let platform = platform
            .split_once('/')
            .map(|(os, architecture)| Platform { os: os.to_owned(), architecture: architecture.to_owned() });
        let digest = Digest::of(format!("{platform:?}").as_bytes());
        Descriptor { media_type: OCI_MANIFEST.to_owned(), digest, size: 1, platform, annotations: BTreeMap::new() }
    }

    fn chosen(platforms: &[&str]) -> Option<usize> {
        let index = Index { entries: platforms.iter().map(|platform| entry(platform)).collect() };
        let chosen = index.choose().ok()?;
        index.entries.iter().position(|entry| std::ptr::eq(entry, chosen))
    }

    #[test]
    fn the_module_comes_before_the_processor() {
        let cases: [(&[&str], Option<usize>); 10] = [
            (&["linux/amd64", "wasi/wasm", "wasip1/wasm"], Some(2)),
            (&["js/wasm", "linux/amd64", "linux/wasm"], Some(2)),
            (&["linux/arm64", "js/wasm", "linux/amd64"], Some(1)),
            (&["linux/arm64", "linux/amd64"], Some(1)),
            (&["linux/amd64", "linux/amd64"], Some(0)),
            (&["wasip2/wasm", "linux/amd64"], Some(1)),
            (&["wasip2/wasm"], Some(0)),
            (&["linux/s390x"], Some(0)),
            (&[""], Some(0)),
            (&["linux/arm64", "linux/s390x"], None),
        ];
        for (platforms, expected) in cases {
            assert_eq!(chosen(platforms), expected, "{platforms:?}");
        }
    }

    #[test]
    fn what_a_build_tool_puts_beside_its_images_is_passed_over() {
        let mut provenance = entry("unknown/unknown");
        provenance.annotations.insert(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned());
        let index = Index { entries: vec![provenance, entry("linux/arm64")] };
        assert_eq!(index.choose(), Ok(&index.entries[1]));
    }

    #[test]
    fn an_index_without_a_fitting_image_says_what_it_has() {
        let nested = Descriptor { media_type: OCI_INDEX.to_owned(), ..entry("wasi/wasm") };
        let index = Index { entries: vec![nested, entry("linux/arm64"), entry("windows/amd64"), entry("")] };
        assert_eq!(
            index.choose().unwrap_err().to_string(),
            "none of the image's platforms fits: it offers linux/arm64, windows/amd64, no platform; wasm, wasi or \
             linux/amd64 is needed"
        );
        assert!(Index { entries: Vec::new() }.choose().unwrap_err().to_string().contains("it offers none"));
    }
}
