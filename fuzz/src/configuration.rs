//! Texts that may be configurations.

use config::Config;

/// No text panics; what is accepted prints as a file that reads the same; what is not is explained in
/// single lines that point into the text.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text, "t") {
        Ok(config) => {
            let printed = config.to_toml();
            let again = Config::parse(&printed, "printed");
            assert_eq!(again.as_ref(), Ok(&config), "{printed}");
        }
        Err(errors) => {
            let lines = text.lines().count() + 1;
            assert!(errors.len() > 0);
            for error in &errors {
                let line = error.line.unwrap_or(1);
                assert!((1..=lines).contains(&line), "{error}");
                assert_eq!(error.to_string().lines().count(), 1, "{error:?}");
            }
        }
    }
}
