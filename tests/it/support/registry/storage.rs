//! The registry's storage on disk, as its filesystem driver lays it out: blobs by digest, and links to them.

use std::fs;
use std::path::Path;

use wasmplane::model::Digest;

use super::Image;

/// Puts blobs, manifest and tag there.
pub fn publish(storage: &Path, repository: &str, tag: &str, image: &Image) {
    let root = storage.join("docker/registry/v2");
    let home = root.join("repositories").join(repository);
    for blob in &image.blobs {
        let digest = put_blob(&root, blob);
        link(&home.join(format!("_layers/sha256/{digest}")), &digest);
    }
    let digest = put_blob(&root, &image.manifest);
    link(&home.join(format!("_manifests/revisions/sha256/{digest}")), &digest);
    let tag = home.join("_manifests/tags").join(tag);
    link(&tag.join(format!("index/sha256/{digest}")), &digest);
    link(&tag.join("current"), &digest);
}

fn put_blob(root: &Path, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let hex = digest.to_string();
    let folder = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
    fs::create_dir_all(&folder).expect("the storage is writable");
    fs::write(folder.join("data"), content).expect("the storage is writable");
    digest
}

fn link(folder: &Path, digest: &Digest) {
    fs::create_dir_all(folder).expect("the storage is writable");
    let unfinished = folder.join("unfinished");
    fs::write(&unfinished, format!("sha256:{digest}")).expect("the storage is writable");
    fs::rename(unfinished, folder.join("link")).expect("the storage is writable");
}
