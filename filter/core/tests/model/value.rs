//! The updates that the gateway may post, and what a state of Laravel is.

/// One session's updates: two QRs, and every kind of state that the default rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Value {
    QrA,
    QrB,
    /// What a QR implies.
    Pending,
    /// Neither implied nor voiding.
    Connecting,
    /// Voids a QR, and says more than other states do: they do not take its place.
    Active,
    /// Voids a QR, too.
    Inactive,
}

/// What somebody who took all updates in their order would hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) status: Option<Value>,
    pub(crate) qr: Qr,
}

/// The QR in a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Qr {
    #[default]
    None,
    A,
    B,
    /// A state has made it meaningless, or it ran out before it was delivered: whichever Laravel has is
    /// right, and the same one again is news.
    Any,
}

// === impl Value ===

impl Value {
    pub(crate) const ALL: [Self; 6] = [
        Self::QrA,
        Self::QrB,
        Self::Pending,
        Self::Connecting,
        Self::Active,
        Self::Inactive,
    ];

    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::QrA | Self::QrB => "qr",
            _ => "status",
        }
    }

    pub(crate) fn body(self) -> &'static str {
        match self {
            Self::QrA => r#"{"session_id":"s","qr":"2@a"}"#,
            Self::QrB => r#"{"session_id":"s","qr":"2@b"}"#,
            Self::Pending => r#"{"session_id":"s","estado_qr":"pending"}"#,
            Self::Connecting => r#"{"session_id":"s","estado_qr":"connecting"}"#,
            Self::Active => r#"{"session_id":"s","estado_qr":"active","phone":"4"}"#,
            Self::Inactive => r#"{"session_id":"s","estado_qr":"inactive"}"#,
        }
    }

    pub(crate) fn of_body(body: &[u8]) -> Self {
        let is = |value: &Self| value.body().as_bytes() == body;
        Self::ALL
            .into_iter()
            .find(is)
            .expect("a body that was offered, or a QR's implied state")
    }

    pub(crate) fn of_index(index: u8) -> Self {
        Self::ALL[usize::from(index)]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QrA => "QR A",
            Self::QrB => "QR B",
            Self::Pending => "pending",
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Inactive => "inactive",
        }
    }
}

// === impl View ===

impl View {
    /// As Laravel takes an update: a QR makes the session pending, too.
    pub(crate) fn take(&mut self, value: Value) {
        match value {
            Value::QrA => self.qr = Qr::A,
            Value::QrB => self.qr = Qr::B,
            Value::Active | Value::Inactive => self.qr = Qr::Any,
            Value::Pending | Value::Connecting => {}
        }
        self.status = Some(match value {
            Value::QrA | Value::QrB => Value::Pending,
            state => state,
        });
    }

    /// Whether this update would change nothing of what its route is about. A QR that is still Laravel's
    /// last one is known, even if a state has come after it: whoever wants `pending` again posts that.
    pub(crate) fn has(&self, value: Value) -> bool {
        match value {
            Value::QrA => self.qr == Qr::A,
            Value::QrB => self.qr == Qr::B,
            state => self.status == Some(state),
        }
    }

    /// Whether this is what the gateway wants Laravel to hold.
    pub(crate) fn is_what(&self, wanted: &Self) -> bool {
        self.status == wanted.status && (wanted.qr == Qr::Any || self.qr == wanted.qr)
    }
}
