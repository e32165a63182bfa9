//! How a long list goes into messages of a bounded size. Pure.

use std::collections::VecDeque;

use prost::Message;
use roost_proto::types::SandboxObserved;

/// Bytes of one part: some thousand sandboxes, and far below what any central
/// takes, so that none of them holds a connection or a transaction for long.
pub(in crate::link) const PART_MAX_BYTES: usize = 512 << 10;
/// Longest sentence about a sandbox: what is longer is no sentence.
const TEXT_MAX_BYTES: usize = 2 << 10;

/// Cuts a list into parts of at most `max_bytes` each, or of one sandbox that
/// is larger; one empty part for an empty list.
pub(super) fn split(list: Vec<SandboxObserved>, max_bytes: usize) -> VecDeque<Vec<SandboxObserved>> {
    let mut parts = VecDeque::from([Vec::new()]);
    let mut bytes = 0;
    for observed in list {
        let length = observed.encoded_len();
        if bytes + length > max_bytes && bytes > 0 {
            parts.push_back(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(last) = parts.back_mut() {
            last.push(observed);
        }
    }
    parts
}

/// Cuts a text that would make one sandbox fill a message.
pub(super) fn bounded(mut observed: SandboxObserved) -> SandboxObserved {
    if observed.message.len() > TEXT_MAX_BYTES {
        let end = observed.message.floor_char_boundary(TEXT_MAX_BYTES);
        observed.message.truncate(end);
    }
    observed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(message: String) -> SandboxObserved {
        SandboxObserved { sandbox_id: "sbx-0123456789abcdef".into(), message, ..SandboxObserved::default() }
    }

    #[test]
    fn an_empty_list_is_one_part() {
        assert_eq!(split(Vec::new(), PART_MAX_BYTES), [Vec::new()]);
    }

    #[test]
    fn no_part_is_larger_than_its_bound_and_nothing_is_lost() {
        let list: Vec<_> = (0..2_000).map(|n| observed("x".repeat(n))).map(bounded).collect();
        let parts = split(list.clone(), PART_MAX_BYTES);
        assert!(parts.len() > 1);
        for part in &parts {
            assert!(part.iter().map(Message::encoded_len).sum::<usize>() <= PART_MAX_BYTES);
        }
        assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>(), list);
    }

    #[test]
    fn an_endless_sentence_is_cut_between_two_letters() {
        let cut = bounded(observed("é".repeat(3_000))).message;
        assert!(cut.len() <= TEXT_MAX_BYTES && cut.chars().all(|c| c == 'é'));
    }
}
