// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// Permanent reports whether an error of a call that found the server is one that waiting does not mend, and what an operator can do about
// it. A server that is down, starting, full, read-only or not to be found may be there in a moment: these are not permanent.
func Permanent(err error) (hint string, yes bool) {
	if errors.Is(err, ErrInvalid) { // a schema of a later program
		return "run the newest weir that has been run on this database", true
	}
	if errors.Is(err, ErrTooOld) {
		return "upgrade the server, or name another in DATABASE_URL", true
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return "", false
	}
	switch e.Code {
	case "28P01": // invalid_password
		return "see the user and the password in DATABASE_URL", true
	case "28000": // invalid_authorization_specification
		return "see the user in DATABASE_URL, and pg_hba.conf on the server", true
	case "3D000": // invalid_catalog_name
		return "make the database with createdb, or see its name in DATABASE_URL", true
	case "42501": // insufficient_privilege
		return "the user in DATABASE_URL must own the schema weir, or may create it: grant create on database … to …", true
	}
	return "", false
}
