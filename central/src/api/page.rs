//! Pages of lists that are small enough to be read whole.

use roost_proto::model::Page;
use serde::Deserialize;

use super::problem::ApiError;

/// Items on a page when the caller does not say.
pub(super) const DEFAULT_SIZE: u32 = 100;
/// Most items on a page.
const MAX_SIZE: u32 = 500;

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// At most this many items, 1 to 500; 100 when absent.
    pub(super) page_size: Option<u32>,
    /// `next_page_token` of the page before.
    pub(super) page_token: Option<String>,
}

/// The wanted size, within its bounds.
pub(super) fn size(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(DEFAULT_SIZE) {
        size @ 1..=MAX_SIZE => Ok(size),
        size => Err(ApiError::field("page_size", format!("{size} is out of range: use 1 to {MAX_SIZE}"))),
    }
}

/// One page of a list that is sorted by `key`; the token is the key of the
/// last item before.
pub(super) fn of<T>(items: Vec<T>, query: &PageQuery, key: impl Fn(&T) -> String) -> Result<Page<T>, ApiError> {
    let size = usize::try_from(size(query.page_size)?).unwrap_or(usize::MAX);
    let after = query.page_token.as_deref();
    let mut rest = items.into_iter().filter(|item| after.is_none_or(|after| key(item).as_str() > after));
    let items: Vec<T> = rest.by_ref().take(size).collect();
    let next_page_token = rest.next().and_then(|_| items.last().map(&key));
    Ok(Page { items, next_page_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        let mut query = PageQuery { page_size: Some(2), page_token: None };
        let mut seen = Vec::new();
        loop {
            let page = of(names.clone(), &query, String::clone).unwrap();
            seen.extend(page.items);
            query.page_token = page.next_page_token;
            if query.page_token.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);
    }

    #[test]
    fn a_page_of_nothing_or_of_everything_is_refused() {
        assert!(size(Some(0)).is_err());
        assert!(size(Some(501)).is_err());
        assert_eq!(size(None).unwrap(), 100);
    }
}
