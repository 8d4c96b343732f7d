//! HCL: the tree of `hcl-edit` as bodies and expressions with positions.

use std::ops::Range;

use hcl_edit::expr::{self, BinaryOperator, Expression, ObjectKey, TraversalOperator};
use hcl_edit::structure::{self, Structure};
use hcl_edit::template::HeredocTemplate;
use hcl_edit::{Ident, Span as _, parser};

use super::template::{Flavour, parts};
use super::{Attribute, Block, Body, Call, Expr, ExprKind, For, Operator, Step};
use crate::bake::source::{BakeError, Place};
use crate::bake::value::{Number, Type, Value};
use crate::diag::Span;

/// The text being converted and where it stands.
pub(super) struct Source<'a> {
    pub(super) file: usize,
    pub(super) text: &'a str,
    /// Position in the file of the first byte of the text.
    pub(super) start: usize,
    /// If set, all positions are this one: the text is a JSON string with escapes.
    pub(super) fixed: Option<Span>,
}

impl Source<'_> {
    pub(super) fn place(&self, span: Option<Range<usize>>) -> Place {
        let span = span.map(|span| Span::new(span.start + self.start, span.end + self.start));
        Place::new(self.file, self.fixed.or(span).unwrap_or_default())
    }

    fn syntax_error(&self, error: &parser::Error) -> BakeError {
        let at = error.location().offset().min(self.text.len());
        let message = error.message().split('\n').map(str::trim).collect::<Vec<_>>().join("; ");
        BakeError::syntax(self.place(Some(at..at)), message)
    }
}

/// Reads a file in HCL.
///
/// # Errors
/// The syntax is wrong, or an attribute is defined twice.
pub(crate) fn parse_hcl(text: &str, file: usize) -> Result<Body, BakeError> {
    let source = Source { file, text, start: 0, fixed: None };
    let parsed = parser::parse_body(text).map_err(|error| source.syntax_error(&error))?;
    body(&parsed, &source)
}

/// Reads one expression, which stands at `place`.
///
/// # Errors
/// The syntax is wrong.
pub(crate) fn parse_expression(text: &str, place: Place) -> Result<Expr, BakeError> {
    let source = Source { file: place.file, text, start: 0, fixed: Some(place.span) };
    let parsed = parser::parse_expr(text).map_err(|error| source.syntax_error(&error))?;
    expression(&parsed, &source)
}

/// Reads the text of a JSON string as a template. Positions are exact unless the string has escapes.
pub(super) fn parse_template(text: &str, place: Place, exact: bool) -> Result<Expr, BakeError> {
    let fixed = (!exact).then_some(place.span);
    let source = Source { file: place.file, text, start: place.span.start + 1, fixed };
    let parsed = parser::parse_template(text).map_err(|error| source.syntax_error(&error))?;
    let parts = parts(&parsed, Flavour::Text, &source)?;
    Ok(Expr { kind: ExprKind::JsonText(text.to_owned(), parts), at: place })
}

fn body(parsed: &structure::Body, source: &Source<'_>) -> Result<Body, BakeError> {
    let mut converted = Body::default();
    for structure in parsed {
        match structure {
            Structure::Attribute(attribute) => {
                let at = source.place(attribute.key.span());
                let name = attribute.key.as_str().to_owned();
                if converted.attribute(&name).is_some() {
                    let message = format!("argument {name:?} is set twice in one block");
                    return Err(BakeError::syntax(at, message));
                }
                let expr = expression(&attribute.value, source)?;
                converted.attributes.push(Attribute { name, at, expr });
            }
            Structure::Block(parsed) => converted.blocks.push(block(parsed, source)?),
        }
    }
    Ok(converted)
}

fn block(parsed: &structure::Block, source: &Source<'_>) -> Result<Block, BakeError> {
    let labels = parsed.labels.iter().map(|label| {
        let span = match label {
            structure::BlockLabel::Ident(name) => name.span(),
            structure::BlockLabel::String(text) => text.span(),
        };
        (label.as_str().to_owned(), source.place(span))
    });
    let labels: Vec<(String, Place)> = labels.collect();
    let first = source.place(parsed.ident.span());
    let last = labels.last().map_or(first, |(_, place)| *place);
    Ok(Block {
        kind: parsed.ident.as_str().to_owned(),
        labels,
        at: Place::new(source.file, first.span.to(last.span)),
        body: body(&parsed.body, source)?,
    })
}

/// Converts an expression.
pub(super) fn expression(parsed: &Expression, source: &Source<'_>) -> Result<Expr, BakeError> {
    let at = source.place(parsed.span());
    let kind = match parsed {
        Expression::Null(_) => ExprKind::Literal(Value::Null(Type::Dynamic)),
        Expression::Bool(value) => ExprKind::Literal(Value::Bool(*value.as_ref())),
        Expression::Number(value) => {
            // The parsed number is a double; its text has all digits.
            let text = value.span().and_then(|span| source.text.get(span));
            let number = text.and_then(|text| Number::parse(text.trim()));
            let number = number.or_else(|| Number::parse(&value.value().to_string()));
            let number = number.ok_or_else(|| BakeError::syntax(at, "number is too large"))?;
            ExprKind::Literal(Value::Number(number))
        }
        Expression::String(text) => ExprKind::Literal(Value::text(text.as_str())),
        Expression::Array(items) => ExprKind::Tuple(
            items.iter().map(|item| expression(item, source)).collect::<Result<_, _>>()?,
        ),
        Expression::Object(members) => object(members, source)?,
        Expression::StringTemplate(template) => {
            ExprKind::Template(parts(template, Flavour::Text, source)?)
        }
        Expression::HeredocTemplate(heredoc) => {
            check_heredoc(heredoc, at)?;
            let flavour = Flavour::Heredoc { indent: heredoc.indent().unwrap_or(0) };
            ExprKind::Template(parts(&heredoc.template, flavour, source)?)
        }
        Expression::Parenthesis(inner) => expression(inner.inner(), source)?.kind,
        Expression::Variable(name) => ExprKind::Variable(name.as_str().to_owned()),
        Expression::Conditional(parsed) => {
            let parsed = [&parsed.cond_expr, &parsed.true_expr, &parsed.false_expr];
            let [a, b, c] = parsed.map(|part| expression(part, source));
            ExprKind::Conditional(Box::new([a?, b?, c?]))
        }
        Expression::FuncCall(parsed) => call(parsed, source)?,
        Expression::Traversal(parsed) => {
            let steps = steps(&parsed.operators, source)?;
            ExprKind::Traversal(Box::new(expression(&parsed.expr, source)?), steps)
        }
        Expression::UnaryOp(parsed) => {
            let operand = Box::new(expression(&parsed.expr, source)?);
            match parsed.operator.value() {
                expr::UnaryOperator::Neg => ExprKind::Negate(operand),
                expr::UnaryOperator::Not => ExprKind::Not(operand),
            }
        }
        Expression::BinaryOp(parsed) => {
            let operands =
                [expression(&parsed.lhs_expr, source)?, expression(&parsed.rhs_expr, source)?];
            ExprKind::Binary(operator(*parsed.operator.value()), Box::new(operands))
        }
        Expression::ForExpr(parsed) => for_expression(parsed, source)?,
    };
    Ok(Expr { kind, at })
}

/// Refuses a heredoc without lines: the parser takes its end for the first line.
fn check_heredoc(heredoc: &HeredocTemplate, at: Place) -> Result<(), BakeError> {
    let first = heredoc.template.get(0).and_then(|element| element.as_literal());
    let first = first.and_then(|literal| literal.as_str().lines().next());
    if first.is_some_and(|line| line.trim() == heredoc.delimiter.as_str()) {
        let error = BakeError::syntax(at, "a heredoc without lines is not supported");
        return Err(error.help("write an empty string: \"\""));
    }
    Ok(())
}

const fn operator(parsed: BinaryOperator) -> Operator {
    match parsed {
        BinaryOperator::Eq => Operator::Equal,
        BinaryOperator::NotEq => Operator::NotEqual,
        BinaryOperator::LessEq => Operator::LessOrEqual,
        BinaryOperator::GreaterEq => Operator::GreaterOrEqual,
        BinaryOperator::Less => Operator::Less,
        BinaryOperator::Greater => Operator::Greater,
        BinaryOperator::Plus => Operator::Add,
        BinaryOperator::Minus => Operator::Subtract,
        BinaryOperator::Mul => Operator::Multiply,
        BinaryOperator::Div => Operator::Divide,
        BinaryOperator::Mod => Operator::Modulo,
        BinaryOperator::And => Operator::And,
        BinaryOperator::Or => Operator::Or,
    }
}

fn object(members: &expr::Object, source: &Source<'_>) -> Result<ExprKind, BakeError> {
    let members = members.iter().map(|(key, value)| {
        let key = match key {
            ObjectKey::Ident(name) => Expr {
                kind: ExprKind::Literal(Value::text(name.as_str())),
                at: source.place(name.span()),
            },
            // A keyword left of the equals sign is a name.
            ObjectKey::Expression(parsed) if parsed.is_null() || parsed.is_bool() => {
                let at = source.place(parsed.span());
                let name = source.text.get(parsed.span().unwrap_or_default()).unwrap_or("");
                Expr { kind: ExprKind::Literal(Value::text(name.trim())), at }
            }
            ObjectKey::Expression(parsed) => expression(parsed, source)?,
        };
        Ok((key, expression(value.expr(), source)?))
    });
    Ok(ExprKind::Object(members.collect::<Result<_, BakeError>>()?))
}

fn call(parsed: &expr::FuncCall, source: &Source<'_>) -> Result<ExprKind, BakeError> {
    let namespace = parsed.name.namespace.iter().map(|name| format!("{}::", name.as_str()));
    let name = namespace.chain([parsed.name.name.as_str().to_owned()]).collect();
    let arguments = parsed.args.iter().map(|argument| expression(argument, source));
    Ok(ExprKind::Call(Call {
        name,
        at: source.place(parsed.name.name.span()),
        arguments: arguments.collect::<Result<_, _>>()?,
        expand: parsed.args.expand_final(),
    }))
}

fn for_expression(parsed: &expr::ForExpr, source: &Source<'_>) -> Result<ExprKind, BakeError> {
    let key = parsed.key_expr.as_ref().map(|key| expression(key, source)).transpose()?;
    let condition = parsed.cond.as_ref().map(|cond| expression(&cond.expr, source)).transpose()?;
    Ok(ExprKind::For(Box::new(For {
        key_name: parsed.intro.key_var.as_ref().map(|name| name.as_str().to_owned()),
        value_name: parsed.intro.value_var.as_str().to_owned(),
        collection: expression(&parsed.intro.collection_expr, source)?,
        key,
        value: expression(&parsed.value_expr, source)?,
        condition,
        group: parsed.grouping,
    })))
}

/// Converts the steps of a traversal. A splat takes the steps that follow it.
fn steps(
    operators: &[hcl_edit::Decorated<TraversalOperator>],
    source: &Source<'_>,
) -> Result<Vec<Step>, BakeError> {
    let mut converted = Vec::new();
    let mut rest = operators;
    while let Some((first, after)) = rest.split_first() {
        let at = source.place(first.span());
        rest = after;
        match first.value() {
            TraversalOperator::GetAttr(name) => {
                converted.push(Step::Attribute(name_of(name), source.place(name.span())));
            }
            TraversalOperator::Index(key) => converted.push(Step::Index(expression(key, source)?)),
            TraversalOperator::LegacyIndex(index) => {
                let value = Value::Number(Number::big((*index.value()).into()));
                converted.push(Step::Index(Expr { kind: ExprKind::Literal(value), at }));
            }
            TraversalOperator::AttrSplat(_) => {
                let is_attribute = |step: &&hcl_edit::Decorated<TraversalOperator>| {
                    matches!(step.value(), TraversalOperator::GetAttr(_))
                };
                let n_attributes = rest.iter().take_while(is_attribute).count();
                let (own, after) = rest.split_at_checked(n_attributes).unwrap_or((rest, &[]));
                rest = after;
                converted.push(Step::AttributeSplat(steps(own, source)?, at));
            }
            TraversalOperator::FullSplat(_) => {
                converted.push(Step::FullSplat(steps(rest, source)?, at));
                rest = &[];
            }
        }
    }
    Ok(converted)
}

fn name_of(name: &Ident) -> String {
    name.as_str().to_owned()
}
