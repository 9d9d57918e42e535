"""Who may call what: keys, OpenID Connect, rate limits."""
