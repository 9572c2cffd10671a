use bytes::Bytes;

use super::*;
use crate::{DocumentId, Limits, PeerId};

#[test]
fn a_sync_frame_is_what_the_message_encodes_to() {
    let document = DocumentId::new("doc").unwrap();
    let (sender, target) = (PeerId::new("server").unwrap(), PeerId::new("tab").unwrap());
    let frame = SyncFrame::new(&document, &sender, &target);
    for len in [1, 23, 24, 255, 256, 65_535, 65_536] {
        let data = Bytes::from(vec![7; len]);
        let message = Message::Sync {
            document: document.clone(),
            sender: sender.clone(),
            target: target.clone(),
            data: data.clone(),
        };
        assert_eq!(frame.with(&data), message.encode(), "{len}");
        let decoded = decode(&message.encode(), &Limits::default()).unwrap();
        assert_eq!(decoded, message);
    }
}
