//! The OpenAPI document and the reference page come from the table of routes.

use std::path::Path;

use api::routes::{self, Endpoint};
use http::Method;
use serde_json::Value;

use crate::fixture::Served;

/// Rewrites the page when MATRIARCH_BLESS is set; otherwise it must be up to date.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/rest.md");
    let page = routes::reference();
    if std::env::var_os("MATRIARCH_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is not what the table says: run the tests with MATRIARCH_BLESS=1",
        path.display()
    );
}

#[test]
fn openapi_describes_every_route() {
    let served = Served::plain();
    let (code, _, body) = served.get("/openapi.json");
    assert_eq!(code, 200);
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for route in routes::ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        assert_eq!(operation["summary"], route.summary, "{} {}", route.method, route.path);
        assert_eq!(operation["security"].is_array(), route.protected, "{} {}", route.method, route.path);
        for code in route.codes {
            assert!(operation["responses"][code.to_string()].is_object(), "{} {code}", route.path);
        }
    }
}

/// Every line of the table is reachable, and everything that changes something is protected.
#[test]
fn the_table_steers_the_server() {
    for route in routes::ROUTES {
        if route.method == Method::GET {
            assert_eq!(routes::reading(route.path), route.endpoint, "{}", route.path);
            assert!(!route.protected);
        } else {
            assert_eq!(routes::acting(&route.method, route.path).unwrap().endpoint, route.endpoint);
            assert!(route.protected, "{} {}", route.method, route.path);
        }
    }
    assert_eq!(routes::reading("/config/anything"), Endpoint::Config);
    assert_eq!(routes::reading("/api/other"), Endpoint::Health);
    assert_eq!(routes::reading("/matriarch/handover"), Endpoint::Health);
}
