//! Tests of templates: texts, fields, functions, and errors.

use serde_json::json;

use super::*;

const PLATFORM: [Field; 2] =
    [struct_field("OS", "os", Shape::Text), optional_field("Variant", "variant", Shape::Text)];
const ENTRY: [Field; 3] = [
    struct_field("Digest", "digest", Shape::Text),
    optional_field("Platform", "platform", Shape::Pointer(&PLATFORM)),
    optional_field("Labels", "labels", Shape::Map(&Shape::Text)),
];
const ROOT: [Field; 5] = [
    struct_field("Name", "name", Shape::Text),
    struct_field("Size", "size", Shape::Number),
    struct_field("Entries", "entries", Shape::List(&Shape::Struct(&ENTRY))),
    optional_field("ByName", "byName", Shape::Map(&Shape::Pointer(&ENTRY))),
    optional_field("Extra", "extra", Shape::Any),
];

fn root() -> Value {
    let json = json!({
        "name": "<a>", "size": 7, "unknown": 1,
        "entries": [
            { "digest": "d1", "platform": { "os": "linux", "variant": "v7" }, "labels": { "k": "v" } },
            { "digest": "d2" },
        ],
        "byName": { "x": { "digest": "dx" } },
    });
    Value::from_json(&json, Shape::Struct(&ROOT)).unwrap()
}

fn filled(template: &str) -> Result<String, String> {
    GoTemplate::parse(template)?.fill(&root())
}

/// <https://pkg.go.dev/text/template>
#[test]
fn templates_are_filled_in_as_go_does() {
    for (template, want) in [
        ("a{{.Name}}b", "a<a>b"),
        ("{{.Size}} {{ .Entries | len }}", "7 2"),
        ("{{range .Entries}}{{.Digest}},{{end}}", "d1,d2,"),
        ("{{range $i, $e := .Entries}}{{$i}}={{$e.Digest}} {{end}}{{$.Name}}", "0=d1 1=d2 <a>"),
        ("{{range $name, $e := .ByName}}{{$name}}:{{$e.Digest}}{{end}}", "x:dx"),
        (
            "{{range .Entries}}{{with .Platform}}{{.OS}}/{{.Variant}}{{else}}-{{end}} {{end}}",
            "linux/v7 - ",
        ),
        ("{{(index .Entries 1).Digest}}{{(index .ByName \"x\").Digest}}", "d2dx"),
        (
            "{{index (index .Entries 0).Labels \"k\"}}|{{index (index .Entries 0).Labels \"z\"}}|",
            "v||",
        ),
        ("{{(index .Entries 0).Labels}} {{(index .Entries 1).Labels}}", "map[k:v] map[]"),
        ("{{(index .Entries 0).Labels.z}} {{(index .Entries 1).Platform}}", "<no value> <nil>"),
        ("{{if and (eq .Size 7) (ne .Name \"b\")}}yes{{else}}no{{end}}", "yes"),
        ("{{if gt .Size 8}}a{{else if le .Size 7}}b{{else}}c{{end}}", "b"),
        ("{{if not .Extra}}none{{end}}{{or .Extra .Name}}", "none<a>"),
        ("{{$x := 1}}{{range .Entries}}{{$x = .Digest}}{{end}}{{$x}}", "d2"),
        ("{{printf \"%s %d %v %q%%\" .Name .Size true .Name}}", "<a> 7 true \"<a>\"%"),
        ("{{println .Name 1}}{{print `a\\n` \"\\n\"}}", "<a> 1\na\\n\n"),
        ("a  {{- /* gone */ -}}  b {{- .Size -}} c", "ab7c"),
        ("{{\"}}\"}}", "}}"),
        (
            "{{json .Name}} {{json (index .Entries 1)}}",
            "\"\\u003ca\\u003e\" {\n  \"digest\": \"d2\"\n}",
        ),
        ("{{json (index .ByName \"q\")}}", "null"),
        ("{{.Entries | len | printf \"%d\"}}", "2"),
    ] {
        assert_eq!(filled(template).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn json_has_the_order_of_the_fields_and_drops_unknown_members() {
    let want = "{\n  \"name\": \"\\u003ca\\u003e\",\n  \"size\": 7,\n  \"entries\": null\n}";
    let json = json!({ "size": 7, "name": "<a>", "zzz": true });
    let root = Value::from_json(&json, Shape::Struct(&ROOT)).unwrap();
    assert_eq!(GoTemplate::parse("{{json .}}").unwrap().fill(&root).as_deref(), Ok(want));
}

#[test]
fn invalid_templates_are_refused_with_the_reason() {
    for (template, part) in [
        ("{{.Name", "has no `}}`"),
        ("{{.Nme}}", "unknown field .Nme: use one of Name, Size"),
        ("{{.Name.X}}", "a text does not have the field .X"),
        ("{{(index .Entries 1).Platform.OS}}", "nil does not have the field .OS"),
        ("{{split .Name}}", "unknown function `split`: use one of and"),
        ("{{range .Entries}}", "`range` has no `end`"),
        ("{{end}}", "`end` or `else` without"),
        ("{{define \"x\"}}{{end}}", "`define` is not supported"),
        ("{{.Entries}}", "use {{json …}}"),
        ("{{index .Entries 5}}", "the list has no element 5: it has 2"),
        ("{{(.Name}}", "`(` has no `)`"),
        ("{{$x}}", "unknown variable $x"),
        ("{{.Name | .Size}}", "cannot have arguments"),
        ("{{printf \"%d\" .Name}}", "does not support `%d` of a text"),
        ("{{eq .Name 1}}", "a text cannot be compared with a number"),
        ("{{.Name ! }}", "unexpected `!`"),
    ] {
        let error = filled(template).unwrap_err();
        assert!(error.contains(part), "{template}: {error}");
    }
    let deep = format!("{}1{}", "{{if 1}}".repeat(500), "{{end}}".repeat(500));
    assert!(filled(&deep).unwrap_err().contains("nested"));
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(filled(&deep).unwrap_err().contains("nested"));
    let wrong = Value::from_json(&json!({ "size": "x" }), Shape::Struct(&ROOT));
    assert_eq!(wrong, Err("size: is not a number".to_owned()));
}
