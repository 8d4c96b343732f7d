//! What an overlay upper folder says, as a layer.
