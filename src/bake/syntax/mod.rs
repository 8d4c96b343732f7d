//! The syntax of definition files: bodies of attributes and blocks, and expressions.
//!
//! HCL and JSON are two notations of the same tree. `hcl-edit` parses HCL; its tree is converted,
//! because JSON has none there and because expressions of several files are evaluated together.

mod json;
mod native;
mod references;
mod template;
mod typeexpr;

pub(crate) use json::parse_json;
pub(crate) use native::{parse_expression, parse_hcl};
pub(crate) use references::References;
pub(crate) use typeexpr::{keyword, type_of};

use super::source::Place;
use super::value::Value;

/// Attributes and blocks of a file or of a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    /// Attributes in the order of the source.
    pub attributes: Vec<Attribute>,
    /// Blocks in the order of the source.
    pub blocks: Vec<Block>,
}

impl Body {
    /// Returns the attribute of this name.
    #[must_use]
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// Returns the blocks of this kind.
    pub(crate) fn blocks_of(&self, kind: &str) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.kind == kind)
    }
}

/// A name and an expression.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    /// Name left of the equals sign.
    pub name: String,
    /// Position of the name.
    pub at: Place,
    /// Expression of the value.
    pub expr: Expr,
}

/// A block, such as `target "app" { … }`.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// First word.
    pub kind: String,
    /// Labels after it.
    pub labels: Vec<(String, Place)>,
    /// Position of the first word and the labels.
    pub at: Place,
    /// Content of the braces.
    pub body: Body,
}

/// An expression with its position.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    /// Kind and parts of the expression.
    pub kind: ExprKind,
    /// Position in the source.
    pub at: Place,
}

/// The kinds of expressions.
#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    /// A constant.
    Literal(Value),
    /// Text with interpolations.
    Template(Vec<Part>),
    /// A string of a JSON file: its text, and the same as a template.
    JsonText(String, Vec<Part>),
    /// A name.
    Variable(String),
    /// Members of a value, in order: `value.name[0]`.
    Traversal(Box<Expr>, Vec<Step>),
    /// A call of a function; the flag is set if the last argument is expanded by `...`.
    Call(Call),
    /// `condition ? yes : no`.
    Conditional(Box<[Expr; 3]>),
    /// An operator between two operands.
    Binary(Operator, Box<[Expr; 2]>),
    /// `!value`.
    Not(Box<Expr>),
    /// `-value`.
    Negate(Box<Expr>),
    /// `[a, b]`.
    Tuple(Vec<Expr>),
    /// `{a = b}`.
    Object(Vec<(Expr, Expr)>),
    /// `[for k, v in c : value if condition]` and the same with braces.
    For(Box<For>),
}

/// A call of a function.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Name of the function.
    pub name: String,
    /// Position of the name.
    pub at: Place,
    /// Arguments.
    pub arguments: Vec<Expr>,
    /// If set, the elements of the last argument are the last arguments.
    pub expand: bool,
}

/// A step from a value to a part of it.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// `.name`.
    Attribute(String, Place),
    /// `[key]`.
    Index(Expr),
    /// `.*`, with the attributes that follow it.
    AttributeSplat(Vec<Step>, Place),
    /// `[*]`, with all steps that follow it.
    FullSplat(Vec<Step>, Place),
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `&&`
    And,
    /// `||`
    Or,
}

/// A `for` expression.
#[derive(Debug, Clone)]
pub(crate) struct For {
    /// Name of the key or index.
    pub key_name: Option<String>,
    /// Name of the value.
    pub value_name: String,
    /// Values to visit.
    pub collection: Expr,
    /// Key of each member; none for a tuple.
    pub key: Option<Expr>,
    /// Value of each element.
    pub value: Expr,
    /// Elements for which this is false are left out.
    pub condition: Option<Expr>,
    /// If set, values with the same key are grouped.
    pub group: bool,
}

/// A part of a template.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Text.
    Literal(String),
    /// `${value}`.
    Value(Expr),
    /// `%{if …}`: the condition and both branches.
    If(Expr, Vec<Part>, Vec<Part>),
    /// `%{for …}`: the loop, whose value is the body.
    For {
        /// Name of the key or index.
        key_name: Option<String>,
        /// Name of the value.
        value_name: String,
        /// Values to visit.
        collection: Expr,
        /// Text of each element.
        body: Vec<Part>,
    },
}
