//! ACLs of topics: what there is, new ones, and those that are to go (KIP-140, patterns by KIP-290).

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{ApiKey, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};

use super::admin::{check, text};
use super::{ClientError, ClusterClient};

/// One ACL of a topic, or of topics with a prefix. The numbers are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Acl {
    /// Whose names it is for.
    pub pattern: AclPattern,
    /// The topic's name, its prefix, or `*` for all topics.
    pub name: String,
    /// `User:name`, or `User:*` for everybody.
    pub principal: String,
    /// Address of the client, or `*` for any.
    pub host: String,
    /// What it is about.
    pub operation: AclOperation,
    /// Whether it allows; else it denies.
    pub allow: bool,
}

/// Which topics an ACL is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclPattern {
    /// The one of this name; `*` is all.
    Literal,
    /// All whose names begin so.
    Prefixed,
}

/// What an ACL allows or denies, as far as topics have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclOperation {
    /// Everything.
    All,
    /// Fetch, and offsets of groups.
    Read,
    /// Produce.
    Write,
    /// Create.
    Create,
    /// Delete, records and topics.
    Delete,
    /// More partitions.
    Alter,
    /// See that it is there.
    Describe,
    /// See its configs.
    DescribeConfigs,
    /// Change its configs.
    AlterConfigs,
}

const OPERATIONS: [(AclOperation, i8); 9] = [
    (AclOperation::All, 2),
    (AclOperation::Read, 3),
    (AclOperation::Write, 4),
    (AclOperation::Create, 5),
    (AclOperation::Delete, 6),
    (AclOperation::Alter, 7),
    (AclOperation::Describe, 8),
    (AclOperation::DescribeConfigs, 10),
    (AclOperation::AlterConfigs, 11),
];

/// Kafka's number of topics among resources.
const TOPIC: i8 = 2;
/// Kafka's number for "any" in filters, of operations and permissions alike, and of patterns.
const ANY: i8 = 1;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
/// ACLs in one request.
const AT_ONCE: usize = 500;

impl AclOperation {
    const fn number(self) -> i8 {
        let mut at = 0;
        while at < OPERATIONS.len() {
            if OPERATIONS[at].0 as u8 == self as u8 {
                return OPERATIONS[at].1;
            }
            at += 1;
        }
        0
    }

    fn of(number: i8) -> Option<Self> {
        OPERATIONS.iter().find(|(_, known)| *known == number).map(|(operation, _)| *operation)
    }
}

impl std::fmt::Display for Acl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let permission = if self.allow { "ALLOW" } else { "DENY" };
        let pattern = if self.pattern == AclPattern::Prefixed { "topics with prefix" } else { "topic" };
        let (operation, principal, name) = (self.operation, &self.principal, &self.name);
        write!(f, "{permission} {operation:?} to {principal} from {} on {pattern} {name}", self.host)
    }
}

impl ClusterClient {
    /// All ACLs of topics. Those of a kind that this version does not know are left out.
    ///
    /// # Errors
    /// [`ClientError::Kafka`], with [`super::KafkaError::SECURITY_DISABLED`] where the cluster has no authorizer.
    pub async fn topic_acls(&self) -> Result<Vec<Acl>, ClientError> {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(TOPIC)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(ANY)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        let answer = self.read(request).await?;
        check(ApiKey::DescribeAcls, answer.error_code, answer.error_message)?;
        let mut acls = Vec::new();
        for resource in answer.resources.into_iter().filter(|resource| resource.resource_type == TOPIC) {
            let pattern = match resource.pattern_type {
                LITERAL => AclPattern::Literal,
                PREFIXED => AclPattern::Prefixed,
                _ => continue,
            };
            for one in resource.acls {
                let (Some(operation), DENY | ALLOW) = (AclOperation::of(one.operation), one.permission_type) else {
                    continue;
                };
                acls.push(Acl {
                    pattern,
                    name: resource.resource_name.to_string(),
                    principal: one.principal.to_string(),
                    host: one.host.to_string(),
                    operation,
                    allow: one.permission_type == ALLOW,
                });
            }
        }
        Ok(acls)
    }

    /// Creates ACLs; those that exist are no error. One outcome for each, in their order.
    ///
    /// # Errors
    /// As [`ClusterClient::topic_acls`] where the whole request fails.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let mut outcomes = Vec::with_capacity(acls.len());
        for some in acls.chunks(AT_ONCE) {
            let creation = |acl: &Acl| {
                AclCreation::default()
                    .with_resource_type(TOPIC)
                    .with_resource_name(text(&acl.name))
                    .with_resource_pattern_type(acl.pattern_number())
                    .with_principal(text(&acl.principal))
                    .with_host(text(&acl.host))
                    .with_operation(acl.operation.number())
                    .with_permission_type(acl.permission_number())
            };
            let request = CreateAclsRequest::default().with_creations(some.iter().map(creation).collect());
            let answer = self.controller().await?.ask(request).await?;
            self.counted(ApiKey::CreateAcls, some.len(), answer.results.len())?;
            let results = answer.results.into_iter();
            outcomes.extend(results.map(|one| check(ApiKey::CreateAcls, one.error_code, one.error_message)));
        }
        Ok(outcomes)
    }

    /// Deletes exactly these ACLs; those that are not there are no error. One outcome for each, in their order.
    ///
    /// # Errors
    /// As [`ClusterClient::topic_acls`] where the whole request fails.
    pub async fn delete_acls(&self, acls: &[Acl]) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let mut outcomes = Vec::with_capacity(acls.len());
        for some in acls.chunks(AT_ONCE) {
            let filter = |acl: &Acl| {
                DeleteAclsFilter::default()
                    .with_resource_type_filter(TOPIC)
                    .with_resource_name_filter(Some(text(&acl.name)))
                    .with_pattern_type_filter(acl.pattern_number())
                    .with_principal_filter(Some(text(&acl.principal)))
                    .with_host_filter(Some(text(&acl.host)))
                    .with_operation(acl.operation.number())
                    .with_permission_type(acl.permission_number())
            };
            let request = DeleteAclsRequest::default().with_filters(some.iter().map(filter).collect());
            let answer = self.controller().await?.ask(request).await?;
            self.counted(ApiKey::DeleteAcls, some.len(), answer.filter_results.len())?;
            for one in answer.filter_results {
                let inner = one
                    .matching_acls
                    .into_iter()
                    .try_for_each(|acl| check(ApiKey::DeleteAcls, acl.error_code, acl.error_message));
                outcomes.push(check(ApiKey::DeleteAcls, one.error_code, one.error_message).and(inner));
            }
        }
        Ok(outcomes)
    }

    /// Outcomes are told apart by their place alone, so there must be as many as were asked for.
    fn counted(&self, api: ApiKey, asked: usize, answered: usize) -> Result<(), ClientError> {
        if asked == answered {
            return Ok(());
        }
        let detail = format!("{api:?} of cluster {}: {answered} outcomes for {asked} ACLs", self.name());
        Err(ClientError::Invalid { detail })
    }
}

impl Acl {
    const fn pattern_number(&self) -> i8 {
        match self.pattern {
            AclPattern::Literal => LITERAL,
            AclPattern::Prefixed => PREFIXED,
        }
    }

    const fn permission_number(&self) -> i8 {
        if self.allow { ALLOW } else { DENY }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::create_acls_response::AclCreationResult;
    use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
    use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
    use kafka_protocol::messages::{CreateAclsResponse, DeleteAclsResponse, DescribeAclsResponse};

    use super::*;
    use crate::client::KafkaError;
    use crate::client::fake_broker::{FakeBroker, client};

    fn acl(pattern: AclPattern, operation: AclOperation) -> Acl {
        let (name, principal, host) = ("eu.".to_owned(), "User:a".to_owned(), "*".to_owned());
        Acl { pattern, name, principal, host, operation, allow: true }
    }

    #[tokio::test]
    async fn acls_are_read_and_kinds_of_the_future_are_left_out() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![broker.address.clone()]);
        let one = |operation, permission| {
            AclDescription::default()
                .with_principal(text("User:a"))
                .with_host(text("*"))
                .with_operation(operation)
                .with_permission_type(permission)
        };
        let resource = |kind, pattern| {
            let resource = DescribeAclsResource::default().with_resource_type(kind).with_pattern_type(pattern);
            resource.with_resource_name(text("eu.")).with_acls(vec![one(3, 3), one(11, 2), one(99, 3), one(3, 9)])
        };
        let serve = async {
            let mut guest = broker.welcome().await;
            let asked = guest.expect(ApiKey::DescribeAcls).await;
            let request: DescribeAclsRequest = asked.decode();
            assert_eq!((request.resource_type_filter, request.pattern_type_filter, request.operation), (2, 1, 1));
            let resources = vec![resource(2, 4), resource(3, 3), resource(2, 9)];
            guest.answer(&asked, &DescribeAclsResponse::default().with_resources(resources)).await;
            let asked = guest.expect(ApiKey::DescribeAcls).await;
            guest.answer(&asked, &DescribeAclsResponse::default().with_error_code(54)).await;
            guest
        };
        let ask = async { (client.topic_acls().await, client.topic_acls().await) };
        let ((acls, disabled), _guest) = tokio::join!(ask, serve);
        let denied = Acl { allow: false, ..acl(AclPattern::Prefixed, AclOperation::AlterConfigs) };
        let acls = acls.expect("ACLs");
        assert_eq!(acls, [acl(AclPattern::Prefixed, AclOperation::Read), denied]);
        assert_eq!(acls[1].to_string(), "DENY AlterConfigs to User:a from * on topics with prefix eu.");
        assert_eq!(disabled.expect_err("no authorizer").kafka(), Some(KafkaError::SECURITY_DISABLED));
    }

    #[tokio::test]
    async fn each_new_and_each_deleted_acl_has_its_outcome() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![broker.address.clone()]);
        let acls = [acl(AclPattern::Literal, AclOperation::Read), acl(AclPattern::Prefixed, AclOperation::Describe)];
        let serve = async {
            let mut any = broker.welcome().await;
            any.tell_brokers(&[(2, &broker.address)]).await;
            let mut guest = broker.welcome().await;
            let asked = guest.expect(ApiKey::CreateAcls).await;
            let request: CreateAclsRequest = asked.decode();
            let seen =
                request.creations.iter().map(|one| (one.resource_pattern_type, one.operation, one.permission_type));
            assert_eq!(seen.collect::<Vec<_>>(), [(3, 3, 3), (4, 8, 3)]);
            let results = vec![AclCreationResult::default(), AclCreationResult::default().with_error_code(31)];
            guest.answer(&asked, &CreateAclsResponse::default().with_results(results)).await;
            let asked = guest.expect(ApiKey::DeleteAcls).await;
            let request: DeleteAclsRequest = asked.decode();
            assert_eq!(request.filters[1].resource_name_filter.as_deref(), Some("eu."));
            let refused = DeleteAclsMatchingAcl::default().with_error_code(31);
            let results = vec![
                DeleteAclsFilterResult::default(),
                DeleteAclsFilterResult::default().with_matching_acls(vec![refused]),
            ];
            guest.answer(&asked, &DeleteAclsResponse::default().with_filter_results(results)).await;
            let asked = guest.expect(ApiKey::CreateAcls).await;
            guest.answer(&asked, &CreateAclsResponse::default()).await;
            (any, guest)
        };
        let ask = async {
            (client.create_acls(&acls).await, client.delete_acls(&acls).await, client.create_acls(&acls).await)
        };
        let ((created, deleted, missing), _guests) = tokio::join!(ask, serve);
        for outcomes in [created.expect("outcomes"), deleted.expect("outcomes")] {
            assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes.len() == 2);
        }
        assert!(matches!(missing, Err(ClientError::Invalid { .. })));
    }
}
