//! Every layout, from its manifest to the module.

use bytes::Bytes;

use super::super::fixtures::{File, Image, MODULE, gzip, image, tar, zstd};
use super::super::media_types::{
    CNCF_CONFIG, CNCF_LAYER, DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, OCI_TAR_GZIP, SOLO_CONFIG,
    SOLO_LAYER, WASM_TO_OCI_LAYER,
};
use super::super::{Consumer, Extracted, ImageError, Layout, UnpackLimits};

const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const MANIFEST: &[u8] = b"schemaVersion: 1\nphase: PreAuthZ\npriority: 100\nmodule: extension.wasm\n";

/// What a registry's client does: fetches the blobs that are asked for, and hands them over.
fn extract_for(consumer: Consumer, image: &Image) -> Result<Extracted, ImageError> {
    let blobs = image.manifest.blobs()?;
    let config = Bytes::from_static(b"{}");
    let stored = || image.layers.iter().chain([&config]);
    let fetch = |digest| stored().find(|blob| crate::model::Digest::of(blob) == digest).cloned();
    let blobs: Vec<Bytes> = blobs.iter().map(|blob| fetch(blob.digest).expect("a blob")).collect();
    image.manifest.extract_for(consumer, blobs, &UnpackLimits::default())
}

pub fn extract(image: &Image) -> Result<Extracted, ImageError> {
    extract_for(Consumer::Plugin, image)
}

fn error(image: &Image) -> String {
    extract(image).unwrap_err().to_string()
}

fn container(layers: &[Vec<u8>]) -> Image {
    image(OCI_MANIFEST, OCI_CONFIG, &layers.iter().map(|layer| (OCI_TAR, layer.clone())).collect::<Vec<_>>())
}

#[test]
fn each_layout_gives_its_module() {
    let compat = tar(&[File("plugin.wasm", MODULE)]);
    let maistra = tar(&[File("manifest.yaml", MANIFEST), File("extension.wasm", MODULE)]);
    let module = || MODULE.to_vec();
    let cases: [(Layout, Image); 12] = [
        (Layout::Cncf, image(OCI_MANIFEST, CNCF_CONFIG, &[(CNCF_LAYER, module())])),
        (Layout::Cncf, image(OCI_MANIFEST, "application/vnd.oci.empty.v1+json", &[(CNCF_LAYER, module())])),
        (Layout::Solo, image(OCI_MANIFEST, SOLO_CONFIG, &[(SOLO_CONFIG, b"{}".to_vec()), (SOLO_LAYER, module())])),
        (Layout::Solo, image(OCI_MANIFEST, SOLO_CONFIG, &[(SOLO_LAYER, module())])),
        (
            Layout::WasmToOci,
            image(OCI_MANIFEST, "application/vnd.wasm.config.v1+json", &[(WASM_TO_OCI_LAYER, module())]),
        ),
        (Layout::CompatOci, image(OCI_MANIFEST, OCI_CONFIG, &[(OCI_TAR_GZIP, gzip(&compat))])),
        (Layout::CompatOci, image(OCI_MANIFEST, OCI_CONFIG, &[(OCI_TAR, compat.clone())])),
        (
            Layout::CompatOci,
            image(OCI_MANIFEST, OCI_CONFIG, &[("application/vnd.oci.image.layer.v1.tar+zstd", zstd(&compat))]),
        ),
        // The content says how it is packed, whatever the media type says.
        (Layout::CompatOci, image(OCI_MANIFEST, OCI_CONFIG, &[(OCI_TAR_GZIP, zstd(&compat))])),
        (Layout::CompatDocker, image(DOCKER_MANIFEST, DOCKER_CONFIG, &[(DOCKER_TAR, gzip(&compat))])),
        (Layout::Maistra, image(DOCKER_MANIFEST, DOCKER_CONFIG, &[(DOCKER_TAR, gzip(&maistra))])),
        (Layout::Maistra, container(&[maistra])),
    ];
    for (layout, image) in cases {
        let extracted = extract(&image).unwrap();
        assert_eq!((extracted.layout, extracted.module.as_ref()), (layout, MODULE));
        assert_eq!(extracted.defaults.is_some(), layout == Layout::Maistra);
    }
}

#[test]
fn only_the_module_and_what_describes_it_are_fetched() {
    let solo = image(OCI_MANIFEST, SOLO_CONFIG, &[(SOLO_CONFIG, b"{}".to_vec()), (SOLO_LAYER, MODULE.to_vec())]);
    assert_eq!(solo.manifest.blobs().unwrap(), [&solo.manifest.layers[1], &solo.manifest.layers[0]]);
    let huge = vec![b' '; (64 << 10) + 1];
    let solo = image(OCI_MANIFEST, OCI_CONFIG, &[(SOLO_CONFIG, huge), (SOLO_LAYER, MODULE.to_vec())]);
    assert_eq!(solo.manifest.blobs().unwrap(), [&solo.manifest.layers[1]]);
    assert_eq!(
        extract(&solo).unwrap().warnings,
        ["runtime-config.json has 65537 bytes: more than the limit of 65536 bytes; the module is taken without it"]
    );
    let layers = [tar(&[]), tar(&[File("plugin.wasm", MODULE)])];
    let container = container(&layers);
    assert_eq!(container.manifest.blobs().unwrap(), container.manifest.layers.iter().collect::<Vec<_>>());
}

#[test]
fn the_first_root_id_of_a_webassemblyhub_image_is_for_plugins_that_name_none() {
    let runtime = br#"{"type": "envoy_proxy", "abiVersions": ["v0.2.1"], "config": {"rootIds": ["first", "second"]}}"#;
    let solo = |runtime: &[u8]| {
        let layers = [(SOLO_LAYER, MODULE.to_vec()), (SOLO_CONFIG, runtime.to_vec())];
        extract(&image(OCI_MANIFEST, OCI_CONFIG, &layers)).unwrap()
    };
    let read = solo(runtime);
    assert_eq!((read.root_id(), read.warnings.as_slice()), (Some("first"), &[][..]));
    assert_eq!(read.runtime.unwrap().abi_versions, ["v0.2.1"]);
    let broken = solo(b"rootIds: [a]");
    assert_eq!((broken.root_id(), broken.module.as_ref()), (None, MODULE));
    assert!(broken.warnings[0].starts_with("runtime-config.json: ") && broken.warnings[0].ends_with("without it"));

    // As the config of the image, where it is no layer; and in a container image, where nobody ever took it.
    let only_config = image(OCI_MANIFEST, SOLO_CONFIG, &[(SOLO_LAYER, MODULE.to_vec())]);
    assert_eq!(only_config.manifest.blobs().unwrap(), [&only_config.manifest.layers[0], &only_config.manifest.config]);
    let layer = tar(&[File("runtime-config.json", runtime), File("plugin.wasm", MODULE)]);
    let compat = extract(&container(&[layer])).unwrap();
    assert_eq!((compat.root_id(), compat.runtime.as_ref().unwrap().root_ids.len()), (None, 2));
    let layer = tar(&[File("runtime-config.json", b"\xff"), File("plugin.wasm", MODULE)]);
    assert_eq!(extract(&container(&[layer])).unwrap().warnings.len(), 1);
}

#[test]
fn an_image_of_no_known_layout_is_described() {
    let chart = image(
        OCI_MANIFEST,
        "application/vnd.cncf.helm.config.v1+json",
        &[("application/vnd.cncf.helm.chart.content.v1.tar+gzip", Vec::new())],
    );
    let right = "right would be one layer application/wasm, or the tar layers of a container image with plugin.wasm or \
                 manifest.yaml";
    assert_eq!(
        error(&chart),
        format!(
            "no layout that is known: config application/vnd.cncf.helm.config.v1+json, 1 layers: \
             application/vnd.cncf.helm.chart.content.v1.tar+gzip; {right}"
        )
    );
    let two = image(OCI_MANIFEST, CNCF_CONFIG, &[(CNCF_LAYER, MODULE.to_vec()), (CNCF_LAYER, Vec::new())]);
    assert_eq!(
        error(&two),
        "the image has 2 layers application/wasm; right would be one: publish one module per image"
    );
    assert!(error(&image(OCI_MANIFEST, OCI_CONFIG, &[])).contains("0 layers: none"));
    let many = vec![(OCI_TAR, tar(&[])); 129];
    assert_eq!(error(&image(OCI_MANIFEST, OCI_CONFIG, &many)), "the image has 129 layers: more than the limit of 128");
}

#[test]
fn a_file_pushed_as_if_it_were_a_tar_gets_advice() {
    let error = error(&container(&[MODULE.to_vec()]));
    assert!(error.starts_with("the image's only layer: its media type says tar, and it is a WebAssembly module: push"));
}

#[test]
fn an_image_without_module_says_what_it_holds() {
    let layers = [tar(&[File("bin/sh", b"x"), File("b.wasm", b"x")]), tar(&[File("etc/a", b"x")])];
    assert_eq!(
        error(&container(&layers)),
        "the image's 2 layers: none holds plugin.wasm, or manifest.yaml in its root; files seen: b.wasm, bin/sh, etc/a"
    );
    assert!(error(&container(&[tar(&[])])).ends_with("files seen: none"));
}

#[test]
fn sizes_are_those_of_the_manifest() {
    let image = image(OCI_MANIFEST, CNCF_CONFIG, &[(CNCF_LAYER, MODULE.to_vec())]);
    let cut = Bytes::from_static(&MODULE[1..]);
    assert_eq!(
        image.manifest.extract(vec![cut], &UnpackLimits::default()).unwrap_err().to_string(),
        "the image's only layer has 7 bytes, and the manifest says 8: push the image again"
    );
    let small = UnpackLimits { module: 7, ..UnpackLimits::default() };
    assert_eq!(
        image.manifest.extract(image.layers, &small).unwrap_err().to_string(),
        "the module has 8 bytes: more than the limit of 7 bytes"
    );
}

#[test]
fn the_page_has_the_word_of_each_layout() {
    let page = include_str!("../../../../docs/modules.md");
    use Layout::{Cncf, CompatDocker, CompatOci, Maistra, Packed, Plain, Solo, WasmToOci};
    for layout in [Cncf, CompatDocker, CompatOci, Maistra, Packed, Plain, Solo, WasmToOci] {
        assert!(page.contains(&format!("`{}`", layout.as_str())), "{layout:?}");
    }
}
