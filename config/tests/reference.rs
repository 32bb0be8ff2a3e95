//! The reference page in the book is the one that the table of keys makes.

use std::path::Path;

#[test]
fn the_reference_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/config.md");
    let wanted = config::reference();
    if std::env::var_os("MATRIARCH_BLESS").is_some() {
        std::fs::create_dir_all(page.parent().unwrap()).unwrap();
        std::fs::write(&page, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        written == wanted,
        "docs/src/reference/config.md is not what the keys make; run MATRIARCH_BLESS=1 cargo test -p config --test reference"
    );
}
