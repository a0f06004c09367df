CREATE TABLE probes (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    text text NOT NULL CHECK (char_length(text) BETWEEN 1 AND 10000),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
