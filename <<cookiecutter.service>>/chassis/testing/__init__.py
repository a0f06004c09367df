"""What tests of the service and of the chassis share: a database, an application, and real server processes."""
