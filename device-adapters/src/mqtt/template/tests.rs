//! What Zigbee2MQTT, Tasmota and ESPHome announce, and what nobody should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn of(template: &str, message: &str) -> Result<String, TemplateError> {
    Template::parse(template)?.of_message(&Incoming::new(message))
}

#[test]
fn what_the_three_products_announce_is_understood() {
    let z2m = r#"{"state":"ON","temperature":21.46,"contact":false,"update":{"state":"idle","installed_version":9},"a b":1}"#;
    for (template, expected) in [
        ("{{ value_json.temperature }}", "21.46"),
        ("{{ value_json['temperature'] }}", "21.46"),
        ("{{value_json[\"a b\"]}}", "1"),
        ("{{ value_json.contact }}", "False"),
        ("{{ value_json.update.installed_version }}", "9"),
        ("{{ value_json['update']['state'] == 'available' }}", "False"),
        ("{{ value_json.missing }}", ""),
        ("{{ value_json.missing.deeper }}", ""),
        ("{{ value_json.missing | default('OFF') }}", "OFF"),
        ("{{ value_json.temperature | float | round(1) }}", "21.5"),
        ("{{ value_json.temperature | round }}", "21"),
        ("{{ (value_json.temperature | float / 10) | round(2) }}", "2.15"),
        ("{{ value_json.temperature | int }}", "21"),
        ("{{ 'ON' if value_json.state == 'ON' else 'OFF' }}", "ON"),
        ("{% if value_json.state is defined %}{{ value_json.state }}{% endif %}", "ON"),
        ("{% if value_json.nothing is defined %}x{% elif value_json.contact %}y{% else %}z{% endif %}", "z"),
        ("{{ value_json.state | lower }}", "on"),
        ("{{ iif(value_json.contact, 'open', 'closed') }}", "closed"),
        ("{{ value_json.get('state', 'OFF') }}", "ON"),
        ("{{ value_json.state in ['ON', 'on'] and not value_json.contact }}", "True"),
        ("{{ -1 * value_json.update.installed_version + 2 }}", "-7"),
        (r#"{{ value_json["nothing"] | default('',True) | string | truncate(254, True, '', 0) }}"#, ""),
        (
            "{{ value_json.state | truncate(1, True, '', 0) }}{{ 'abcdefgh' | truncate(5, true, '..', 0) }}",
            "Oabc..",
        ),
        (r#"{% if value_json["contact"] %}true{% else %}false{% endif %}"#, "false"),
        ("{{ value_json.contact | lower }}", "false"),
        (r#"{{ "offline" }}"#, "offline"),
        ("prefix {{- ' ' ~ value_json.state -}} suffix", "prefix ONsuffix"),
    ] {
        assert_eq!(of(template, z2m).as_deref(), Ok(expected), "{template}");
    }
    let tasmota = r#"{"POWER":"ON","Dimmer":40,"Color":"255,128,0","HSBColor":"30,100,40","CT":250}"#;
    assert_eq!(of("{{value_json.HSBColor.split(',')[0:2]|join(',')}}", tasmota).unwrap(), "30,100");
    assert_eq!(of("{{value_json.POWER}}", tasmota).unwrap(), "ON");
    assert_eq!(of("{{ value }}", "21.3").unwrap(), "21.3");
    assert_eq!(of("{{ value | float / 1000 }}", "1500").unwrap(), "1.5");
    assert_eq!(of("{{ value.split(';')[1] }}", "a;b").unwrap(), "b");
}

#[test]
fn a_template_that_needs_what_the_message_lacks_says_so() {
    assert_eq!(of("{{ value_json.x | is_defined }}", "{}"), Err(TemplateError::Missing));
    assert_eq!(of("{{ value_json.x | float }}", "{}"), Err(TemplateError::Missing));
    assert!(
        matches!(of("{{ value_json.x | float }}", r#"{"x":"warm"}"#), Err(TemplateError::Unfit(why)) if why.contains("warm"))
    );
    assert_eq!(of("{{ value_json.x | float(0) }}", r#"{"x":"warm"}"#).unwrap(), "0");
    assert_eq!(of("{{ value_json.x }}", "no json").unwrap(), "");
}

#[test]
fn a_command_template_gets_named_values() {
    let template =
        Template::parse("{\"brightness\": {{ value }}, \"on\": {{ 'true' if value > 0 else 'false' }}}")
            .unwrap();
    assert_eq!(template.of_values(&[("value", &json!(7))]).unwrap(), r#"{"brightness": 7, "on": true}"#);
}

#[test]
fn what_is_not_understood_is_refused_before_a_message_comes() {
    for bad in [
        "{% for x in value_json %}{{ x }}{% endfor %}",
        "{% set x = value ~ value %}{{ x }}",
        "{{ states('light.kitchen') }}",
        "{{ now() }}",
        "{{ value | regex_replace('a', 'b') }}",
        "{{ value",
        "{{ }}",
        "{{ value value }}",
        "{{ 'open }}",
        "{% if value %}never closed",
        "{% endif %}",
    ] {
        assert!(matches!(Template::parse(bad), Err(TemplateError::NotUnderstood(_))), "{bad} was taken");
    }
    assert!(matches!(Template::parse(&"x".repeat(5_000)), Err(TemplateError::TooLong(5_000))));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(400), ")".repeat(400));
    assert_eq!(Template::parse(&deep), Err(TemplateError::TooDeep));
    let nested = "{% if 1 %}".repeat(60);
    assert!(Template::parse(&nested).is_err());
    for chain in ["not ", "- ", "1 + ", "1 or "] {
        let long = format!("{{{{ {}1 }}}}", chain.repeat(200));
        assert_eq!(Template::parse(&long), Err(TemplateError::TooDeep), "{chain}");
        let fits = format!("{{{{ {}1 }}}}", chain.repeat(70));
        assert!(Template::parse(&fits).unwrap().of_message(&Incoming::new("")).is_ok(), "{chain}");
    }
}

#[test]
fn no_template_makes_more_than_its_bound() {
    let long = "x".repeat(MOST_TEXT);
    for greedy in [
        "{{ value ~ value }}",
        "{{ value + value }}",
        "{{ value | replace('x', value) }}",
        "{{ [value, value] | join(value) }}",
        "{{ value }}{{ value }}",
    ] {
        assert_eq!(of(greedy, &long), Err(TemplateError::TooMuch), "{greedy}");
    }
    assert!(of("{{ 'a' * 100000000 }}", "").is_err());
    assert!(of("{{ [1] * 100000000 }}", "").is_err());
    assert_eq!(of("{{ value }}", &"x".repeat(MOST_TEXT + 1)), Err(TemplateError::TooMuch));
    // Zigbee2MQTT tells of itself in more than that, and short answers are in it.
    let info = json!({ "permit_join": false, "schema": "x".repeat(3 * MOST_TEXT) }).to_string();
    assert_eq!(of("{{ value_json.permit_join | lower }}", &info).as_deref(), Ok("false"));
    assert_eq!(of("{{ value_json.schema.split('x') | length }}", &info), Err(TemplateError::TooMuch));
    assert!(of("{{ 9223372036854775807 * 2 }}", "").is_ok());
    assert!(
        of("{{ 1 / 0 }}", "").is_err() && of("{{ 1 // 0 }}", "").is_err() && of("{{ 1 % 0 }}", "").is_err()
    );
}

/// A text that is quoted again and again doubles each time: sixty times are more than any machine has.
#[test]
fn filters_that_feed_on_each_other_end_before_they_eat_the_memory() {
    let steps = "|tojson".repeat(20);
    let template = Template::parse(&format!("{{{{ ((value{steps}){steps}){steps} }}}}")).unwrap();
    assert!(matches!(template.of_message(&Incoming::new("a")), Err(TemplateError::TooMuch)));
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(source in "[ -~äé]{0,80}", message in "[ -~]{0,60}") {
        for source in [source.clone(), format!("{{{{ {source} }}}}"), format!("{{% if {source} %}}a{{% endif %}}")] {
            if let Ok(template) = Template::parse(&source) {
                let _ = template.of_message(&Incoming::new(&message));
            }
        }
    }

    #[test]
    fn any_arrangement_of_words_is_taken_or_refused(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "value", "value_json", ".x", "['y']", "[0]", "[1:]", "|", "float", "round(1)", "default(1)", "is",
                "not", "defined", "if", "else", "(", ")", "+", "-", "*", "/", "~", "==", "in", "'a'", "1", "2.5", ",",
            ]),
            0..14,
        ),
        message in prop::sample::select(vec!["", "1", "{}", r#"{"x":{"y":[1,2]}}"#, "[1,2]", "\"a\""]),
    ) {
        if let Ok(template) = Template::parse(&format!("{{{{ {} }}}}", words.join(" "))) {
            let _ = template.of_message(&Incoming::new(message));
        }
    }
}
