//! The life of a sandbox on real parts.

use roost_tests::node::spec;
use roost_tests::{Result, TestNode};

#[tokio::test]
async fn a_desktop_becomes_ready_and_shows_its_screen() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("fluxbox")?).await?;
    let observed = node.client.get(&id).await?;
    eprintln!("{:#?}", observed.stages);
    let png = node.client.screenshot(&id).await?;
    std::fs::write("/tmp/w/shot.png", &png)?;
    let who = node.client.exec(&id, &["/usr/bin/id", "-u"]).await?;
    assert_eq!(who.stdout.trim(), "1000");
    node.clear().await
}
