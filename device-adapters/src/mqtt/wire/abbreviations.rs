//! The short names of announcements, as far as what they stand for is read here.
//!
//! Source: <https://www.home-assistant.io/integrations/mqtt/#supported-abbreviations-in-mqtt-discovery-messages>.

use serde_json::{Map, Value};

/// In the body of an announcement, sorted.
const OF_COMPONENTS: &[(&str, &str)] = &[
    ("avty", "availability"),
    ("avty_mode", "availability_mode"),
    ("avty_t", "availability_topic"),
    ("avty_tpl", "availability_template"),
    ("bri_cmd_t", "brightness_command_topic"),
    ("bri_cmd_tpl", "brightness_command_template"),
    ("bri_scl", "brightness_scale"),
    ("bri_stat_t", "brightness_state_topic"),
    ("bri_val_tpl", "brightness_value_template"),
    ("clr_temp_cmd_t", "color_temp_command_topic"),
    ("clr_temp_cmd_tpl", "color_temp_command_template"),
    ("clr_temp_k", "color_temp_kelvin"),
    ("clr_temp_stat_t", "color_temp_state_topic"),
    ("clr_temp_val_tpl", "color_temp_value_template"),
    ("clrm", "color_mode"),
    ("clrm_stat_t", "color_mode_state_topic"),
    ("clrm_val_tpl", "color_mode_value_template"),
    ("cmd_t", "command_topic"),
    ("cmd_tpl", "command_template"),
    ("cmps", "components"),
    ("dev", "device"),
    ("dev_cla", "device_class"),
    ("e", "encoding"),
    ("en", "enabled_by_default"),
    ("ent_cat", "entity_category"),
    ("exp_aft", "expire_after"),
    ("fx_cmd_t", "effect_command_topic"),
    ("fx_cmd_tpl", "effect_command_template"),
    ("fx_list", "effect_list"),
    ("fx_stat_t", "effect_state_topic"),
    ("fx_val_tpl", "effect_value_template"),
    ("hs_cmd_t", "hs_command_topic"),
    ("hs_cmd_tpl", "hs_command_template"),
    ("hs_stat_t", "hs_state_topic"),
    ("hs_val_tpl", "hs_value_template"),
    ("max_k", "max_kelvin"),
    ("max_mirs", "max_mireds"),
    ("min_k", "min_kelvin"),
    ("min_mirs", "min_mireds"),
    ("o", "origin"),
    ("obj_id", "object_id"),
    ("off_dly", "off_delay"),
    ("on_cmd_type", "on_command_type"),
    ("ops", "options"),
    ("opt", "optimistic"),
    ("p", "platform"),
    ("pl", "payload"),
    ("pl_avail", "payload_available"),
    ("pl_not_avail", "payload_not_available"),
    ("pl_off", "payload_off"),
    ("pl_on", "payload_on"),
    ("pl_prs", "payload_press"),
    ("ret", "retain"),
    ("rgb_cmd_t", "rgb_command_topic"),
    ("rgb_cmd_tpl", "rgb_command_template"),
    ("rgb_stat_t", "rgb_state_topic"),
    ("rgb_val_tpl", "rgb_value_template"),
    ("rgbw_cmd_t", "rgbw_command_topic"),
    ("rgbw_cmd_tpl", "rgbw_command_template"),
    ("rgbw_stat_t", "rgbw_state_topic"),
    ("rgbw_val_tpl", "rgbw_value_template"),
    ("rgbww_cmd_t", "rgbww_command_topic"),
    ("rgbww_cmd_tpl", "rgbww_command_template"),
    ("rgbww_stat_t", "rgbww_state_topic"),
    ("rgbww_val_tpl", "rgbww_value_template"),
    ("stat_cla", "state_class"),
    ("stat_off", "state_off"),
    ("stat_on", "state_on"),
    ("stat_t", "state_topic"),
    ("stat_val_tpl", "state_value_template"),
    ("sug_dsp_prc", "suggested_display_precision"),
    ("sup_clrm", "supported_color_modes"),
    ("t", "topic"),
    ("uniq_id", "unique_id"),
    ("unit_of_meas", "unit_of_measurement"),
    ("val_tpl", "value_template"),
    ("xy_cmd_t", "xy_command_topic"),
    ("xy_cmd_tpl", "xy_command_template"),
    ("xy_stat_t", "xy_state_topic"),
    ("xy_val_tpl", "xy_value_template"),
];

/// In its `device`, sorted.
const OF_DEVICES: &[(&str, &str)] = &[
    ("cns", "connections"),
    ("cu", "configuration_url"),
    ("hw", "hw_version"),
    ("ids", "identifiers"),
    ("mdl", "model"),
    ("mdl_id", "model_id"),
    ("mf", "manufacturer"),
    ("sa", "suggested_area"),
    ("sn", "serial_number"),
    ("sw", "sw_version"),
];

/// In its `origin`, sorted.
const OF_ORIGINS: &[(&str, &str)] = &[("sw", "sw_version"), ("url", "support_url")];

/// The key by which a topic may be left out: what it stands for is put in its place.
const BASE: &str = "~";

/// Writes every short name of a body out, those in its parts included.
pub(crate) fn write_out(body: &mut Map<String, Value>) {
    rename(body, OF_COMPONENTS);
    if let Some(Value::Object(device)) = body.get_mut("device") {
        rename(device, OF_DEVICES);
    }
    if let Some(Value::Object(origin)) = body.get_mut("origin") {
        rename(origin, OF_ORIGINS);
    }
    match body.get_mut("availability") {
        Some(Value::Array(sources)) => {
            sources
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|source| rename(source, OF_COMPONENTS));
        }
        Some(Value::Object(source)) => rename(source, OF_COMPONENTS),
        _ => {}
    }
    if let Some(Value::Object(components)) = body.get_mut("components") {
        components.values_mut().filter_map(Value::as_object_mut).for_each(write_out);
    }
}

/// Puts the base topic where `~` stands for it, at the beginning or the end of a topic.
pub(crate) fn fill_in_base(body: &mut Map<String, Value>) {
    let Some(Value::String(base)) = body.remove(BASE) else { return };
    fill_in(body, &base);
    match body.get_mut("availability") {
        Some(Value::Array(sources)) => {
            sources.iter_mut().filter_map(Value::as_object_mut).for_each(|source| fill_in(source, &base));
        }
        Some(Value::Object(source)) => fill_in(source, &base),
        _ => {}
    }
}

fn fill_in(body: &mut Map<String, Value>, base: &str) {
    let topics = body.iter_mut().filter(|(key, _)| key.ends_with("topic"));
    for topic in topics.filter_map(|(_, value)| match value {
        Value::String(topic) => Some(topic),
        _ => None,
    }) {
        if let Some(rest) = topic.strip_prefix(BASE) {
            *topic = format!("{base}{rest}");
        } else if let Some(rest) = topic.strip_suffix(BASE) {
            *topic = format!("{rest}{base}");
        }
    }
}

fn rename(body: &mut Map<String, Value>, names: &[(&str, &str)]) {
    let short: Vec<String> = body
        .keys()
        .filter(|key| names.binary_search_by_key(&key.as_str(), |(short, _)| short).is_ok())
        .cloned()
        .collect();
    for short in short {
        let place = names.binary_search_by_key(&short.as_str(), |(short, _)| short);
        let long = place.ok().and_then(|place| names.get(place)).map(|(_, long)| (*long).to_owned());
        if let (Some(value), Some(long)) = (body.remove(&short), long) {
            body.insert(long, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use serde_json::json;

    use super::*;

    #[test]
    fn the_tables_are_sorted_for_the_search() {
        for table in [OF_COMPONENTS, OF_DEVICES, OF_ORIGINS] {
            assert!(table.is_sorted_by_key(|(short, _)| *short));
        }
    }

    #[test]
    fn short_names_and_the_base_topic_are_written_out() {
        let mut body = json!({
            "~": "tasmota/plug/", "stat_t": "~STATE", "cmd_t": "~cmnd/POWER", "name": "~",
            "avty": [{ "t": "~LWT", "pl_avail": "Online" }],
            "dev": { "ids": ["a"], "mf": "Tasmota", "name": "Plug" }, "o": { "sw": "1" },
            "cmps": { "x": { "p": "switch", "uniq_id": "u" } }
        });
        let body = body.as_object_mut().unwrap();
        write_out(body);
        fill_in_base(body);
        assert_eq!(
            Value::Object(body.clone()),
            json!({
                "state_topic": "tasmota/plug/STATE", "command_topic": "tasmota/plug/cmnd/POWER", "name": "~",
                "availability": [{ "topic": "tasmota/plug/LWT", "payload_available": "Online" }],
                "device": { "identifiers": ["a"], "manufacturer": "Tasmota", "name": "Plug" },
                "origin": { "sw_version": "1" },
                "components": { "x": { "platform": "switch", "unique_id": "u" } }
            })
        );
    }
}
