//! Which image of an archive or index is meant: pure choice, no I/O.

use oci_spec::image::{Descriptor, ImageIndex};
use roost_proto::model::ImageRef;

use super::document::Platform;
use super::media::target_kind;

/// Annotation with the full name of an image, as containerd and docker write.
const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation with a name, full or only a tag, of the image specification.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of what is not an image but says something about one.
const ATTACHED_TO: &str = "vnd.docker.reference.type";
/// Most names that an error lists.
const MAX_LISTED: usize = 10;

/// Why no image could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing in it is an image.
    #[error("there is no image in the archive or index")]
    Empty,
    /// Several images, and the wanted name is none of theirs.
    #[error("the archive holds several images: name one of {names} as the reference")]
    Ambiguous {
        /// Their names.
        names: String,
    },
    /// One image without a usable name.
    #[error("the archive gives its image no full name: give a reference such as \"team/desktop:latest\"")]
    Nameless,
    /// No image for this machine.
    #[error("the image is for {found}, this node is {wanted}: build or save one for {wanted}")]
    Platform {
        /// What there is.
        found: String,
        /// What the node is.
        wanted: Platform,
    },
}

/// One image of several, by all the names it has.
#[derive(Debug, Clone)]
pub struct Named<T> {
    /// Names as they stand there, the best first.
    pub names: Vec<String>,
    /// What they name.
    pub item: T,
}

/// Chooses the image that `wanted` names; without that, the only one there
/// is. Returns it with the name to store it under: the wanted one if given.
///
/// # Errors
/// None there, several there, or a single one without a usable name.
pub fn choose_image<T>(images: Vec<Named<T>>, wanted: Option<&ImageRef>) -> Result<(ImageRef, T), SelectError> {
    let names = |images: &[Named<T>]| {
        let names: Vec<_> = images.iter().filter_map(|i| i.names.first()).take(MAX_LISTED).map(|n| quote(n)).collect();
        names.join(", ")
    };
    let by_name = wanted.and_then(|wanted| {
        images
            .iter()
            .position(|image| image.names.iter().any(|name| name.parse().is_ok_and(|n: ImageRef| n == *wanted)))
    });
    if images.len() > 1 && by_name.is_none() {
        return Err(SelectError::Ambiguous { names: names(&images) });
    }
    let image = images.into_iter().nth(by_name.unwrap_or(0)).ok_or(SelectError::Empty)?;
    let own_name = || image.names.iter().filter(|name| is_full(name)).find_map(|name| name.parse().ok());
    let reference = wanted.cloned().or_else(own_name).ok_or(SelectError::Nameless)?;
    Ok((reference, image.item))
}

/// Groups what an archive's index lists by name: entries of one name are one
/// image for several platforms. What is no image is left out.
#[must_use]
pub fn named_images(index: &ImageIndex) -> Vec<Named<Vec<Descriptor>>> {
    let mut images: Vec<Named<Vec<Descriptor>>> = Vec::new();
    for descriptor in index.manifests().iter().filter(|d| is_image(d)) {
        let annotation = |key| descriptor.annotations().as_ref().and_then(|a| a.get(key)).cloned();
        let names: Vec<_> = [FULL_NAME, REF_NAME].into_iter().filter_map(annotation).collect();
        match images.iter_mut().find(|image| image.names == names) {
            Some(image) => image.item.push(descriptor.clone()),
            None => images.push(Named { names, item: vec![descriptor.clone()] }),
        }
    }
    images
}

/// Chooses the entry for a platform: among equals the one that asks for no
/// newer processor, and without a match an only entry that names no platform
/// (its configuration will tell).
///
/// # Errors
/// No entry fits.
pub fn choose_platform<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, SelectError> {
    let images: Vec<_> = entries.iter().filter(|d| is_image(d)).collect();
    let fits = |d: &&Descriptor| platform_of(d).as_ref() == Some(wanted);
    let baseline = images.iter().copied().filter(fits).find(|d| is_baseline(d));
    if let Some(found) = baseline.or_else(|| images.iter().copied().find(fits)) {
        return Ok(found);
    }
    let mut unmarked = images.iter().copied().filter(|d| d.platform().is_none());
    if let (Some(only), None) = (unmarked.next(), unmarked.next()) {
        return Ok(only);
    }
    if images.is_empty() {
        return Err(SelectError::Empty);
    }
    let text = |d: &&Descriptor| platform_of(d).map_or_else(|| "an unnamed platform".to_owned(), |p| p.to_string());
    let found: Vec<_> = images.iter().take(MAX_LISTED).map(text).collect();
    Err(SelectError::Platform { found: found.join(", "), wanted: wanted.clone() })
}

fn is_image(descriptor: &Descriptor) -> bool {
    let is_attached = descriptor.annotations().as_ref().is_some_and(|a| a.contains_key(ATTACHED_TO));
    target_kind(descriptor.media_type()).is_some() && !is_attached
}

fn platform_of(descriptor: &Descriptor) -> Option<Platform> {
    let platform = descriptor.platform().as_ref()?;
    Some(Platform { os: platform.os().to_string(), architecture: platform.architecture().to_string() })
}

/// Whether every processor of the architecture runs it.
fn is_baseline(descriptor: &Descriptor) -> bool {
    let variant = descriptor.platform().as_ref().and_then(|p| p.variant().as_deref());
    matches!(variant, None | Some("" | "v1" | "v8"))
}

/// Whether a name is more than a tag.
fn is_full(name: &str) -> bool {
    name.contains(['/', ':', '@'])
}

fn quote(name: &str) -> String {
    format!("{:?}", name.chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Named<usize> {
        Named { names: names.iter().map(|&n| n.to_owned()).collect(), item: names.len() }
    }

    fn index(manifests: &str) -> ImageIndex {
        serde_json::from_str(&format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#)).unwrap()
    }

    fn entry(n: u8, rest: &str) -> String {
        let hex = format!("{n:02x}").repeat(32);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{hex}","size":{n}{rest}}}"#)
    }

    fn on(n: u8, os: &str, architecture: &str, variant: &str) -> String {
        let platform = format!(r#"{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#);
        entry(n, &format!(r#","platform":{platform}"#))
    }

    fn amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into() }
    }

    fn chosen(manifests: &str) -> Result<u64, SelectError> {
        choose_platform(index(manifests).manifests(), &amd64()).map(Descriptor::size)
    }

    #[test]
    fn an_only_image_takes_the_wanted_name_or_keeps_its_own() {
        let wanted: ImageRef = "mine:1".parse().unwrap();
        let (name, _) = choose_image(vec![named(&["roost/a:2"])], Some(&wanted)).unwrap();
        assert_eq!(name, wanted);
        let (name, _) = choose_image(vec![named(&["roost/a:2", "2"])], None).unwrap();
        assert_eq!(name.as_str(), "roost/a:2");
    }

    #[test]
    fn a_tag_alone_is_no_name() {
        assert_eq!(choose_image(vec![named(&["latest"])], None), Err(SelectError::Nameless));
        assert_eq!(choose_image(vec![named(&["NOT A:NAME"])], None), Err(SelectError::Nameless));
        assert_eq!(choose_image(Vec::<Named<()>>::new(), None), Err(SelectError::Empty));
    }

    #[test]
    fn of_several_images_the_wanted_name_chooses() {
        let images = vec![named(&["a/a:1"]), named(&["b/b:latest", "latest"])];
        let wanted: ImageRef = "b/b".parse().unwrap();
        assert_eq!(choose_image(images.clone(), Some(&wanted)).unwrap().1, 2);
        let error = choose_image(images, Some(&"c:1".parse().unwrap())).unwrap_err();
        assert_eq!(error, SelectError::Ambiguous { names: "\"a/a:1\", \"b/b:latest\"".into() });
    }

    #[test]
    fn entries_of_one_name_are_one_image() {
        let name = r#","annotations":{"org.opencontainers.image.ref.name":"a/b:1"}"#;
        let images = named_images(&index(&[entry(1, name), entry(2, name), entry(3, "")].join(",")));
        assert_eq!(images.iter().map(|i| i.item.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn the_platform_of_the_host_is_chosen() {
        let all = [on(1, "windows", "amd64", ""), on(2, "linux", "arm64", "v8"), on(3, "linux", "amd64", "")];
        assert_eq!(chosen(&all.join(",")), Ok(3));
    }

    #[test]
    fn the_variant_that_every_processor_runs_is_preferred() {
        assert_eq!(chosen(&[on(1, "linux", "amd64", "v3"), on(2, "linux", "amd64", "")].join(",")), Ok(2));
    }

    #[test]
    fn an_only_entry_without_platform_is_taken_and_two_are_not() {
        assert_eq!(chosen(&entry(7, "")), Ok(7));
        assert!(matches!(chosen(&[entry(1, ""), entry(2, "")].join(",")), Err(SelectError::Platform { .. })));
    }

    #[test]
    fn no_fitting_platform_names_what_there_is() {
        let error = chosen(&on(1, "linux", "s390x", "")).unwrap_err();
        assert!(error.to_string().contains("linux/s390x"), "{error}");
    }

    #[test]
    fn attestations_are_no_images() {
        let attestation = entry(1, r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#);
        assert_eq!(chosen(&attestation), Err(SelectError::Empty));
        assert!(named_images(&index(&attestation)).is_empty());
    }
}
